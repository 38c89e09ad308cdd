"""The index equals the folder: incremental, whole after any failure, nothing dropped silently."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from omni.errors import ConfigError, SourceError, TransientError
from omni.rag.chunk import ChunkConfig
from omni.rag.embed import HashingEmbedder
from omni.rag.index import IndexConfig, IndexSummary, index
from omni.rag.search import search

TABLES = ("documents", "chunks", "terms", "vectors", "manifest")
State = dict[str, list[tuple[Any, ...]]]


def state(con: duckdb.DuckDBPyConnection, *, without: str = "") -> State:
    """All rows of all tables, optionally without the run ids."""
    exclude = {"documents": "EXCLUDE (run_id)", "manifest": "EXCLUDE (run_id)"} if without == "run_id" else {}
    return {
        table: con.execute(f"SELECT * {exclude.get(table, '')} FROM rag.{table} ORDER BY ALL").fetchall()
        for table in TABLES
    }


def counts(summary: IndexSummary) -> tuple[int, int, int, int]:
    return summary.added, summary.changed, summary.removed, summary.unchanged


def parts(n: int) -> str:
    return "\n\n".join(f"# Part {i}\n\nPassage number {i} speaks of subject{i}." for i in range(n))


def test_unchanged_documents_are_never_embedded_again(con: Any, tmp_path: Path, embedder: Any) -> None:
    """LangChain's incremental mode re-embeds four of six unchanged chunks of one source on every run."""
    (tmp_path / "a.md").write_text(parts(6))
    assert index(con, tmp_path, embedder=embedder, run_id="1").embedded == 6
    before = state(con)
    for run in ("2", "3"):
        summary = index(con, tmp_path, embedder=embedder, run_id=run)
        assert (counts(summary), summary.embedded, summary.chunks) == ((0, 0, 0, 1), 0, 6)
    assert len(embedder.texts) == 6
    assert state(con) == before


def test_a_vanished_document_leaves_the_index(con: Any, tmp_path: Path, embedder: Any) -> None:
    """LangChain's incremental mode keeps the chunks of a source that is gone."""
    (tmp_path / "a.md").write_text(parts(6))
    (tmp_path / "b.md").write_text("# Other\n\nSomething else entirely.")
    index(con, tmp_path, embedder=embedder, run_id="1")
    (tmp_path / "a.md").unlink()
    summary = index(con, tmp_path, embedder=embedder, run_id="2")
    assert (counts(summary), summary.documents, summary.chunks) == ((0, 0, 1, 1), 1, 1)
    after = state(con)
    assert len(after["vectors"]) == 1
    assert {row[2] for row in after["terms"]} == {"b.md"}
    assert all(hit.path == "b.md" for hit in search(con, "subject3", embedder=embedder))


def test_an_outage_loses_no_document(con: Any, tmp_path: Path, embedder: Any) -> None:
    """LlamaIndex stores the hash before it embeds: after an outage its next run skips the document."""
    (tmp_path / "a.md").write_text(parts(2))
    embedder.down = True
    with pytest.raises(TransientError):
        index(con, tmp_path, embedder=embedder, run_id="1")
    with pytest.raises(ConfigError, match="No documents are indexed yet"):
        search(con, "subject1", embedder=embedder)
    embedder.down = False
    assert counts(index(con, tmp_path, embedder=embedder, run_id="2")) == (1, 0, 0, 0)
    assert search(con, "subject1", embedder=embedder)[0].text.endswith("speaks of subject1.")


def test_an_outage_leaves_the_old_index_answering(con: Any, handbook: Path, embedder: Any) -> None:
    index(con, handbook, embedder=embedder, run_id="1")
    before = state(con)
    (handbook / "people" / "leave.md").write_text("# Leave\n\nEveryone has 30 days of holiday.")
    (handbook / "welcome.md").unlink()
    embedder.down = True
    with pytest.raises(TransientError):
        index(con, handbook, embedder=embedder, run_id="2")
    embedder.down = False
    assert state(con) == before
    assert "28 days" in search(con, "days of paid holiday", embedder=embedder)[0].text
    assert counts(index(con, handbook, embedder=embedder, run_id="3")) == (0, 1, 1, 4)
    assert "30 days" in search(con, "days of holiday", embedder=embedder)[0].text


def test_only_changed_passages_are_embedded(con: Any, tmp_path: Path, embedder: Any) -> None:
    (tmp_path / "a.md").write_text(parts(6))
    (tmp_path / "b.md").write_text(parts(6))
    assert index(con, tmp_path, embedder=embedder, run_id="1").embedded == 6
    (tmp_path / "a.md").write_text(parts(6).replace("subject3", "topic3") + "\n\n# New part\n\nAt the end.")
    summary = index(con, tmp_path, embedder=embedder, run_id="2")
    assert (counts(summary), summary.embedded, summary.chunks) == ((0, 1, 0, 1), 2, 13)
    (tmp_path / "a.md").rename(tmp_path / "c.md")
    summary = index(con, tmp_path, embedder=embedder, run_id="3")
    assert (counts(summary), summary.embedded) == ((1, 0, 1, 1), 0)


def test_incremental_equals_fresh(con: Any, handbook: Path, embedder: Any) -> None:
    index(con, handbook, embedder=embedder, run_id="1")
    (handbook / "work" / "returns.md").write_text("# Returns\n\nNo returns any more.")
    (handbook / "people" / "expenses.md").unlink()
    (handbook / "new.md").write_text("# New\n\nA new page.")
    index(con, handbook, embedder=embedder, run_id="2")
    with duckdb.connect() as fresh:
        index(fresh, handbook, embedder=embedder, run_id="1")
        assert state(con, without="run_id") == state(fresh, without="run_id")
    runs = dict(con.execute("SELECT path, run_id FROM rag.documents").fetchall())
    assert (runs["new.md"], runs["work/returns.md"], runs["welcome.md"]) == ("2", "2", "1")


def test_a_rerun_does_not_touch_the_file(tmp_path: Path, handbook: Path, embedder: Any) -> None:
    path = tmp_path / "w.duckdb"
    with duckdb.connect(path) as con:
        index(con, handbook, embedder=embedder, run_id="1")
        con.execute("CHECKPOINT")
        content = path.read_bytes()
        index(con, handbook, embedder=embedder, run_id="2")
        wal = path.with_suffix(".duckdb.wal")
        assert not wal.exists() or wal.stat().st_size == 0
        assert path.read_bytes() == content


@pytest.mark.parametrize("what", ["dimension", "chunks"])
def test_another_configuration_rebuilds_all(con: Any, handbook: Path, embedder: Any, what: str) -> None:
    index(con, handbook, embedder=embedder, run_id="1")
    other = HashingEmbedder(128) if what == "dimension" else embedder
    config = IndexConfig(chunks=ChunkConfig(200, 400)) if what == "chunks" else IndexConfig()
    summary = index(con, handbook, embedder=other, run_id="2", config=config)
    assert summary.rebuilt
    assert counts(summary) == (0, 0, 0, 6)
    with duckdb.connect() as fresh:
        index(fresh, handbook, embedder=other, run_id="2", config=config)
        assert state(con) == state(fresh)
    assert not index(con, handbook, embedder=other, run_id="3", config=config).rebuilt


def test_a_failed_change_of_embedder_keeps_the_old_one(con: Any, handbook: Path, embedder: Any) -> None:
    index(con, handbook, embedder=embedder, run_id="1")
    before = state(con)

    class Broken(HashingEmbedder):
        calls = 0

        def embed(self, texts: Any) -> Any:
            vectors = super().embed(texts)
            vectors[-1, 0] = np.nan
            return vectors

    with pytest.raises(SourceError, match="finite"):
        index(con, handbook, embedder=Broken(128), run_id="2")
    assert state(con) == before
    assert search(con, "refund", embedder=embedder)[0].path == "work/returns.md"
    with pytest.raises(ConfigError, match=r"'hashing' \(512 dimensions\)"):
        search(con, "refund", embedder=HashingEmbedder(128))


def test_ranking_parameters_change_without_a_rebuild(con: Any, handbook: Path, embedder: Any) -> None:
    index(con, handbook, embedder=embedder, run_id="1")
    summary = index(con, handbook, embedder=embedder, run_id="2", config=IndexConfig(k1=0.9, b=0.4))
    assert (summary.rebuilt, summary.embedded) == (False, 0)
    assert con.execute("SELECT k1, b, run_id FROM rag.manifest").fetchall() == [(0.9, 0.4, "2")]
    with pytest.raises(ConfigError):
        IndexConfig(b=2)


def test_a_failing_load_rolls_back_whole(con: Any, handbook: Path, embedder: Any) -> None:
    index(con, handbook, embedder=embedder, run_id="1")
    con.execute("ALTER TABLE rag.terms ADD COLUMN extra INTEGER DEFAULT 0")
    con.execute("ALTER TABLE rag.terms ALTER COLUMN extra DROP DEFAULT")
    con.execute("ALTER TABLE rag.terms ALTER COLUMN extra SET NOT NULL")
    before = state(con)
    (handbook / "welcome.md").write_text("# Welcome\n\nNew words.")
    with pytest.raises(duckdb.ConstraintException):
        index(con, handbook, embedder=embedder, run_id="2")
    after = state(con)
    assert {t: after[t] for t in TABLES if t != "vectors"} == {t: before[t] for t in TABLES if t != "vectors"}
    con.execute("ALTER TABLE rag.terms DROP COLUMN extra")
    assert counts(index(con, handbook, embedder=embedder, run_id="3")) == (0, 1, 0, 5)
    assert search(con, "new words", embedder=embedder)[0].path == "welcome.md"


def test_lost_and_stray_vectors_are_repaired(con: Any, handbook: Path, embedder: Any) -> None:
    index(con, handbook, embedder=embedder, run_id="1")
    before = state(con, without="run_id")
    con.execute("DELETE FROM rag.vectors WHERE text_hash < '8'")
    con.execute(
        "INSERT INTO rag.vectors VALUES ('other', 'x', [1.0]), (?, 'stray', [1.0])", [embedder.digest]
    )
    summary = index(con, handbook, embedder=embedder, run_id="2")
    assert counts(summary) == (0, 0, 0, 6)
    assert summary.embedded > 0
    assert state(con, without="run_id") == before


def test_what_cannot_be_read_is_reported(con: Any, handbook: Path, embedder: Any, tmp_path: Path) -> None:
    (handbook / "latin.md").write_bytes("Überstunden".encode("latin-1"))
    (handbook / "binary.md").write_bytes(b"a\0b")
    (handbook / "huge.md").write_text("x" * 5000)
    (tmp_path / "secret.md").write_text("outside")
    (handbook / "link.md").symlink_to(tmp_path / "secret.md")
    (handbook / "dangling.md").symlink_to(handbook / "gone.md")
    (handbook / ".hidden.md").write_text("hidden")
    summary = index(con, handbook, embedder=embedder, run_id="1", config=IndexConfig(max_bytes=4000))
    assert summary.documents == 6
    reasons = {entry.path: entry.reason for entry in summary.rejected}
    assert list(reasons) == ["binary.md", "dangling.md", "huge.md", "latin.md", "link.md"]
    assert "UTF-8 (byte 0)" in reasons["latin.md"]
    assert "the limit is 4,000" in reasons["huge.md"]
    assert "outside the document folder" in reasons["link.md"]


@pytest.mark.parametrize("rebuild", [False, True])
def test_a_document_that_turns_unreadable_keeps_its_last_version(
    con: Any, handbook: Path, embedder: Any, rebuild: bool
) -> None:
    index(con, handbook, embedder=embedder, run_id="1")
    (handbook / "work" / "returns.md").write_bytes(b"\xff\xfe")
    config = IndexConfig(chunks=ChunkConfig(300, 600)) if rebuild else None
    summary = index(con, handbook, embedder=embedder, run_id="2", config=config)
    assert (counts(summary), summary.documents) == ((0, 0, 0, 6), 6)
    assert [entry.path for entry in summary.rejected] == ["work/returns.md"]
    assert "60 days" in search(con, "customers may return any article", embedder=embedder)[0].text


def test_an_empty_folder_does_not_wipe_the_index(
    con: Any, handbook: Path, embedder: Any, tmp_path: Path
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert index(con, empty, embedder=embedder, run_id="0").documents == 0
    assert search(con, "anything at all here", embedder=embedder) == []
    index(con, handbook, embedder=embedder, run_id="1")
    before = state(con)
    with pytest.raises(SourceError, match="the index holds 6"):
        index(con, empty, embedder=embedder, run_id="2")
    with pytest.raises(ConfigError, match="does not exist"):
        index(con, tmp_path / "missing", embedder=embedder, run_id="2", allow_empty=True)
    assert state(con) == before
    assert counts(index(con, empty, embedder=embedder, run_id="3", allow_empty=True)) == (0, 0, 6, 0)
    assert {table: len(rows) for table, rows in state(con).items()} == dict.fromkeys(TABLES, 0) | {
        "manifest": 1
    }


@pytest.mark.parametrize(
    ("content", "chunks"),
    [
        ("", 0),
        ("\n \n", 0),
        ("# Only a heading", 1),
        ('It\'s "quoted"; DROP TABLE rag.chunks; -- 😀 ünï 加班 \u2028 \ufeff end', 1),
        ("\ufeff# With a byte order mark\r\n\r\nAnd Windows lines.\r\n", 1),
    ],
)
def test_odd_documents(con: Any, tmp_path: Path, embedder: Any, content: str, chunks: int) -> None:
    (tmp_path / "odd 'name' 😀.md").write_bytes(content.encode())
    summary = index(con, tmp_path, embedder=embedder, run_id="it's")
    assert (summary.documents, summary.chunks) == (1, chunks)
    ((text,),) = con.execute("SELECT text FROM rag.documents").fetchall()
    assert text == content.removeprefix("\ufeff")
    for piece, start, end in con.execute("SELECT text, start_offset, end_offset FROM rag.chunks").fetchall():
        assert text[start:end] == piece


def test_a_megabyte_of_prose(con: Any, tmp_path: Path) -> None:
    paragraph = " ".join(f"word{n % 977} follows" for n in range(70)) + ".\n\n"
    (tmp_path / "long.md").write_text("# Long\n\n" + paragraph * (1_000_000 // len(paragraph)))
    summary = index(con, tmp_path, embedder=HashingEmbedder(), run_id="1")
    assert summary.chunks > 800
    assert summary.embedded < 5  # the paragraphs repeat, and equal passages share a vector
    assert len(search(con, "word13", embedder=HashingEmbedder())) == 5


def test_readers_see_one_state_while_a_reindex_runs(tmp_path: Path, embedder: Any) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()

    def write(version: int) -> None:
        for n in range(12):
            (folder / f"{n}.md").write_text(f"# Page {n}\n\nThe shared answer is version{version} of it.")

    with duckdb.connect(tmp_path / "w.duckdb") as con:
        write(0)
        index(con, folder, embedder=embedder, run_id="0")
        done = threading.Event()
        seen: list[set[str]] = []
        problems: list[BaseException] = []

        def read() -> None:
            try:
                with con.cursor() as reader:
                    last = False
                    while not last:
                        last = done.is_set()
                        hits = search(reader, "the shared answer", embedder=HashingEmbedder(), k=12)
                        assert len(hits) == 12
                        seen.append({hit.text.split("version")[1] for hit in hits})
            except BaseException as error:
                problems.append(error)

        readers = [threading.Thread(target=read) for _ in range(2)]
        for thread in readers:
            thread.start()
        for version in range(1, 9):
            write(version)
            index(con, folder, embedder=embedder, run_id=str(version))
        done.set()
        for thread in readers:
            thread.join()
    assert problems == []
    assert all(len(versions) == 1 for versions in seen)
    assert {"8"} in [{version.split()[0] for version in versions} for versions in seen]


_KILLED = """
import os, signal, sys
from pathlib import Path
import duckdb
from omni.rag.embed import HashingEmbedder
from omni.rag.index import index

class Dying(HashingEmbedder):
    calls = 0
    def embed(self, texts):
        self.calls += 1
        if self.calls == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().embed(texts)

with duckdb.connect(sys.argv[1]) as con:
    index(con, Path(sys.argv[2]), embedder=Dying(), run_id="killed")
"""


@pytest.mark.slow
def test_a_killed_run_is_finished_by_the_next(tmp_path: Path, embedder: Any) -> None:
    folder, path = tmp_path / "docs", tmp_path / "w.duckdb"
    folder.mkdir()
    (folder / "old.md").write_text("# Old\n\nThe old page.")
    with duckdb.connect(path) as con:
        index(con, folder, embedder=embedder, run_id="1")
    (folder / "new.md").write_text(parts(600))
    killed = subprocess.run([sys.executable, "-c", _KILLED, str(path), str(folder)], timeout=60, check=False)
    assert killed.returncode == -signal.SIGKILL
    with duckdb.connect(path) as con:
        assert con.execute("SELECT path FROM rag.documents").fetchall() == [("old.md",)]
        assert search(con, "old page", embedder=embedder)[0].path == "old.md"
        summary = index(con, folder, embedder=embedder, run_id="2")
        assert (summary.added, summary.embedded) == (1, 600 - 512)
        with duckdb.connect() as fresh:
            index(fresh, folder, embedder=embedder, run_id="2")
            assert state(con, without="run_id") == state(fresh, without="run_id")
