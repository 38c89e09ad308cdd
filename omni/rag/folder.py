"""Reading a folder of documents: every file becomes a document or a rejection with its reason."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from omni.errors import ConfigError, SourceError

SUFFIXES = frozenset({".md", ".markdown", ".txt"})
MAX_BYTES = 10_000_000


@dataclass(frozen=True)
class Document:
    """One file: its path below the folder with forward slashes, and its text without byte order mark."""

    path: str
    text: str
    content_hash: str


@dataclass(frozen=True)
class Rejected:
    """A file that could not be read, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class Contents:
    """What a folder holds, by path."""

    documents: dict[str, Document]
    rejected: tuple[Rejected, ...]


def read(folder: Path, *, max_bytes: int = MAX_BYTES) -> Contents:
    """Read every Markdown or text file below `folder`; hidden files and folders are not documents.

    Raises:
        ConfigError: the folder is missing or not a folder.
        SourceError: a folder cannot be listed; going on would look as if its documents were gone.
    """
    if not folder.is_dir():
        raise ConfigError(
            f"Document folder {folder} does not exist or is not a folder. Create it, or correct "
            "`documents` in the tenant's file."
        )
    documents: dict[str, Document] = {}
    rejected: list[Rejected] = []
    root = folder.resolve()
    for path in _files(folder):
        name = path.relative_to(folder).as_posix()
        try:
            documents[name] = _document(path, name, root, max_bytes)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            safe = name.encode("utf-8", "backslashreplace").decode()
            rejected.append(Rejected(safe, reason))
    return Contents(documents, tuple(rejected))


def _files(folder: Path) -> list[Path]:
    def fail(error: OSError) -> None:
        raise SourceError(
            f"Document folder {error.filename} cannot be listed: {error.strerror}. Make it readable."
        ) from error

    found: list[Path] = []
    for parent, subfolders, names in os.walk(folder, onerror=fail):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        found += [
            Path(parent) / name
            for name in names
            if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES
        ]
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def _document(path: Path, name: str, root: Path, max_bytes: int) -> Document:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("its name is not valid UTF-8; rename it") from None
    if not path.resolve().is_relative_to(root):
        raise ValueError("it is a link that leads outside the document folder")
    if not path.is_file():
        raise ValueError("it is not a regular file, or a link to nothing")
    size = path.stat().st_size
    if size > max_bytes:
        raise ValueError(f"it has {size:,} bytes, the limit is {max_bytes:,}; split it")
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not valid UTF-8 (byte {error.start}); save it as UTF-8") from None
    if "\0" in text:
        raise ValueError("it contains NUL characters, so it is no text file")
    return Document(name, text, hashlib.sha256(content).hexdigest())
