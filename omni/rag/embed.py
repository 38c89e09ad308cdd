"""Turning text into vectors: the protocol, the default without dependencies, and a hosted model.

An index records the embedder's digest; vectors of different digests are never compared.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import SecretStr

from omni.errors import AuthError, ConfigError, SourceError, TerminalError, TransientError
from omni.rag.stem import stem
from omni.rag.text import words

if TYPE_CHECKING:
    from openai import APIStatusError, OpenAI

Vectors = npt.NDArray[np.float32]

HASHING = "hashing-1"
_BIGRAM_WEIGHT = 0.4
_GRAM_WEIGHT = 0.25
_GRAM_SIZES = (3, 4)


class Embedder(Protocol):
    """Whatever maps texts to vectors of one length.

    `digest` identifies everything the vectors depend on: two embedders of equal digest give equal vectors.
    """

    @property
    def name(self) -> str: ...

    @property
    def dimension(self) -> int: ...

    @property
    def digest(self) -> str: ...

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Vectors as float32 of shape (len(texts), dimension), in the order of the texts."""
        ...


def _digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


@lru_cache(maxsize=100_000)
def _word_features(word: str) -> tuple[int, ...]:
    marked = f"<{word}>".encode()
    return tuple(
        zlib.crc32(b"g" + marked[i : i + size]) for size in _GRAM_SIZES for i in range(len(marked) - size + 1)
    )


class HashingEmbedder:
    """Signed feature hashing (Weinberger et al., 2009) of stems, pairs of stems and letter n-grams.

    Needs no model and no network, always gives the same vectors, tolerates misspellings. It knows no
    synonyms. Vectors have length 1, or 0 for text without a word.
    """

    name = "hashing"

    def __init__(self, dimension: int = 512) -> None:
        if not 16 <= dimension <= 65_536:
            raise ConfigError(f"Dimension of hashing vectors must be 16 to 65536, got {dimension}.")
        self.dimension = dimension
        self.digest = _digest(HASHING, dimension, _BIGRAM_WEIGHT, _GRAM_WEIGHT, _GRAM_SIZES)

    def embed(self, texts: Sequence[str]) -> Vectors:
        """See `Embedder.embed`."""
        vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)
        for row, text in enumerate(texts):
            hashes, weights = self._features(text)
            mixed = _mix(np.array(hashes, dtype=np.uint32))
            signs = np.where(mixed >> 31 == 0, 1.0, -1.0)
            column = np.bincount(
                mixed % self.dimension, weights=np.array(weights) * signs, minlength=self.dimension
            )
            length = float(np.linalg.norm(column))
            if length > 0:
                vectors[row] = column / length
        return vectors

    @staticmethod
    def _features(text: str) -> tuple[list[int], list[float]]:
        found = words(text)
        stems = [stem(word) for word in found]
        hashes: list[int] = []
        weights: list[float] = []
        for term, count in Counter(stems).items():
            hashes.append(zlib.crc32(b"w" + term.encode()))
            weights.append(1.0 + math.log(count))
        for (left, right), count in Counter(pairwise(stems)).items():
            hashes.append(zlib.crc32(f"b{left} {right}".encode()))
            weights.append(_BIGRAM_WEIGHT * (1.0 + math.log(count)))
        for word, count in Counter(found).items():
            grams = _word_features(word)
            weight = _GRAM_WEIGHT * (1.0 + math.log(count)) * 2 / math.sqrt(len(grams) + 1)
            hashes.extend(grams)
            weights.extend([weight] * len(grams))
        return hashes, weights


def _mix(values: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    # CRC is linear: without this avalanche (MurmurHash3's finaliser) signs and columns would correlate.
    values = (values ^ (values >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    values = (values ^ (values >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return values ^ (values >> np.uint32(16))


class OpenAIEmbedder:
    """Any server that speaks OpenAI's embeddings API: OpenAI itself, Ollama under `/v1`, vLLM.

    Args:
        base_url: for example `https://api.openai.com/v1`.
        model: the model's name there.
        api_key: sent as a bearer token, never logged.
        dimension: how many numbers the model gives; an answer of another length is an error.
        timeout: seconds one attempt may take.
        retries: further attempts after a transient failure.
        longest_wait: seconds to wait at most between attempts, whatever the server asks for; a server
            that asks for more gets no further attempt, and the error carries its wish.
    """

    name = "openai"
    _max_inputs = 2048
    # The API bounds a request at 300,000 tokens; one letter can be a token.
    _max_characters = 250_000

    def __init__(
        self,
        *,
        base_url: str,
        model: str,
        api_key: SecretStr,
        dimension: int,
        timeout: float = 30.0,
        retries: int = 3,
        longest_wait: float = 20.0,
    ) -> None:
        if dimension < 1 or timeout <= 0 or retries < 0:
            raise ConfigError("Embedder needs dimension >= 1, timeout > 0 and retries >= 0.")
        self.dimension = dimension
        self.digest = _digest("openai", base_url.rstrip("/"), model, dimension)
        self._base_url, self._model, self._key = base_url, model, api_key
        self._timeout, self._retries, self._longest_wait = timeout, retries, longest_wait

    def embed(self, texts: Sequence[str]) -> Vectors:
        """See `Embedder.embed`.

        Raises:
            AuthError: the key was refused.
            TransientError: still throttled, unreachable or failing after the last attempt.
            TerminalError: quota used up, or the request itself was refused.
            SourceError: the answer does not hold one vector of the right length per text.
        """
        from openai import OpenAI

        with OpenAI(
            api_key=self._key.get_secret_value(),
            base_url=self._base_url,
            timeout=self._timeout,
            max_retries=0,
        ) as client:
            parts = [self._call(client, batch) for batch in self._batches(texts)]
        return np.concatenate(parts) if parts else np.zeros((0, self.dimension), dtype=np.float32)

    def _batches(self, texts: Sequence[str]) -> Iterator[list[str]]:
        batch: list[str] = []
        size = 0
        for text in texts:
            if batch and (len(batch) == self._max_inputs or size + len(text) > self._max_characters):
                yield batch
                batch, size = [], 0
            # The API refuses an empty input.
            batch.append(text or " ")
            size += len(text)
        if batch:
            yield batch

    def _call(self, client: OpenAI, batch: list[str]) -> Vectors:
        import openai

        attempt = 0
        while True:
            try:
                answer = client.embeddings.create(model=self._model, input=batch)
                rows = {int(item.index): np.array(item.embedding, dtype=np.float32) for item in answer.data}
                break
            except openai.APIStatusError as error:
                failure = _failure(error, self._model)
            except openai.APIConnectionError:  # includes timeouts
                failure = TransientError(f"Embedding model {self._model!r} did not answer in time.")
            except (openai.APIError, AttributeError, TypeError, ValueError):
                raise SourceError(
                    f"Embedding model {self._model!r} sent an answer that cannot be read. Check that the "
                    "base URL names an OpenAI-compatible API (it usually ends in /v1)."
                ) from None
            wait = _pause(failure, attempt)
            if (
                not isinstance(failure, TransientError)
                or attempt == self._retries
                or wait > self._longest_wait
            ):
                raise failure
            time.sleep(wait)
            attempt += 1
        return self._vectors(rows, len(batch))

    def _vectors(self, rows: dict[int, Vectors], expected: int) -> Vectors:
        if rows.keys() != set(range(expected)):
            raise SourceError(
                f"Embedding model {self._model!r} answered {len(rows)} vectors for {expected} texts."
            )
        shapes = {row.shape for row in rows.values()}
        if shapes != {(self.dimension,)}:
            lengths = sorted({int(np.prod(shape)) for shape in shapes})
            raise SourceError(
                f"Embedding model {self._model!r} gives {lengths} numbers a vector, not {self.dimension}: "
                "correct the embedder's dimension."
            )
        return np.stack([rows[place] for place in range(expected)])


def _failure(error: APIStatusError, model: str) -> TerminalError | TransientError:
    """Our error for an HTTP status. The server's message is left out: it may repeat the text sent."""
    code = str(error.code or error.type or "no code")[:40]
    said = f"Embedding model {model!r} answered HTTP {error.status_code} ({code})"
    if error.status_code in {401, 403}:
        return AuthError(f"{said}: check the API key and that it may use the model.")
    if error.code == "insufficient_quota":
        return TerminalError(f"{said}: the account's quota is used up; raise it or use another embedder.")
    if error.status_code in {408, 409, 429} or error.status_code >= 500:
        return TransientError(f"{said}.", retry_after=_retry_after(error.response.headers))
    return TerminalError(f"{said}: check the model's name, the base URL and the length of the texts.")


def _retry_after(headers: Any) -> float | None:
    for header, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(header, "")) / unit
        except ValueError:
            continue
        if math.isfinite(seconds) and seconds >= 0:
            return seconds
    return None


def _pause(failure: Exception, attempt: int) -> float:
    asked = failure.retry_after if isinstance(failure, TransientError) else None
    return asked if asked is not None else 0.5 * 2.0**attempt
