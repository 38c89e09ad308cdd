"""The default embedder, and a hosted one against a server on loopback."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from omni.errors import AuthError, ConfigError, SourceError, TerminalError, TransientError
from omni.rag.embed import HashingEmbedder, OpenAIEmbedder

KEY = "sk-test-do-not-print"
Reply = tuple[int, dict[str, str], bytes]


@given(texts=st.lists(st.text(max_size=80), max_size=5))
def test_hashing_gives_unit_vectors_alone_or_together(texts: list[str]) -> None:
    embedder = HashingEmbedder(64)
    together = embedder.embed(texts)
    assert together.dtype == np.float32
    assert together.shape == (len(texts), 64)
    for row, text in enumerate(texts):
        assert np.array_equal(together[row], embedder.embed([text])[0])
    lengths = np.linalg.norm(together, axis=1)
    assert np.all((np.abs(lengths - 1) < 1e-5) | (lengths == 0))


def test_hashing_tolerates_misspelling_and_tells_topics_apart() -> None:
    asked, near, far = HashingEmbedder().embed(
        ["travel voucher authorization", "travl vouchers autorization", "sick leave certificate"]
    )
    assert asked @ near > 0.3 > 0.1 > asked @ far
    assert HashingEmbedder(64).digest != HashingEmbedder(128).digest
    with pytest.raises(ConfigError):
        HashingEmbedder(3)


class Server:
    """Answers each request with the next reply of a script, the last one for ever."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.replies: list[Callable[[dict[str, Any]], Reply]] = []
        self.released = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                outer.requests.append(body | {"path": self.path})
                outer.headers.append({name.lower(): value for name, value in self.headers.items()})
                reply = outer.replies.pop(0) if len(outer.replies) > 1 else outer.replies[0]
                status, headers, content = reply(body)
                self.send_response(status)
                for name, value in ({"content-type": "application/json"} | headers).items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"

    def embedder(self, **options: Any) -> OpenAIEmbedder:
        return OpenAIEmbedder(
            **{"base_url": self.url, "model": "m", "api_key": SecretStr(KEY), "dimension": 3} | options
        )


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    thread = threading.Thread(target=made.http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.released.set()
    made.http.shutdown()
    thread.join()
    made.http.server_close()


def _vector(text: str) -> list[float]:
    return [float(len(text)), 0.5, -1.0]


def answered(body: dict[str, Any], *, as_list: bool = False, backwards: bool = False) -> Reply:
    data = []
    for place, text in enumerate(body["input"]):
        packed = base64.b64encode(np.array(_vector(text), dtype="<f4").tobytes()).decode()
        data.append(
            {"object": "embedding", "index": place, "embedding": _vector(text) if as_list else packed}
        )
    if backwards:
        data.reverse()
    usage = {"prompt_tokens": 1, "total_tokens": 1}
    return 200, {}, json.dumps({"object": "list", "data": data, "model": "m", "usage": usage}).encode()


def failed(status: int, code: str = "", **headers: str) -> Callable[[dict[str, Any]], Reply]:
    content = {"error": {"message": f"refused {KEY} text", "type": code, "param": None, "code": code}}
    return lambda _: (status, headers, json.dumps(content).encode())


@pytest.mark.parametrize("as_list", [False, True])
def test_both_encodings_and_any_order(server: Server, as_list: bool) -> None:
    server.replies = [lambda body: answered(body, as_list=as_list, backwards=True)]
    vectors = server.embedder().embed(["a", "bb", ""])
    assert vectors.dtype == np.float32
    assert vectors.tolist() == [[1, 0.5, -1], [2, 0.5, -1], [1, 0.5, -1]]
    assert server.requests[0]["path"] == "/v1/embeddings"
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"
    assert server.embedder().embed([]).shape == (0, 3)


def test_requests_stay_within_the_limits(server: Server) -> None:
    server.replies = [answered]
    assert server.embedder().embed(["x"] * 2050).shape == (2050, 3)
    server.embedder().embed(["y" * 100_000] * 5)
    assert [len(request["input"]) for request in server.requests] == [2048, 2, 2, 2, 1]


def test_transient_failures_are_retried_within_bounds(server: Server) -> None:
    now = {"retry-after-ms": "1"}
    server.replies = [failed(429, "rate_limit_exceeded", **now), failed(503, **now), answered]
    assert server.embedder(retries=2).embed(["a"]).shape == (1, 3)
    server.requests.clear()
    server.replies = [failed(500, **now)]
    with pytest.raises(TransientError, match="HTTP 500"):
        server.embedder(retries=2).embed(["a"])
    assert len(server.requests) == 3


def test_a_long_wait_is_left_to_the_caller(server: Server) -> None:
    server.replies = [failed(429, "rate_limit_exceeded", **{"retry-after": "120"})]
    with pytest.raises(TransientError) as raised:
        server.embedder().embed(["a"])
    assert raised.value.retry_after == 120
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (401, "invalid_api_key", AuthError),
        (403, "", AuthError),
        (429, "insufficient_quota", TerminalError),
        (400, "context_length_exceeded", TerminalError),
        (404, "model_not_found", TerminalError),
    ],
)
def test_final_failures_are_not_retried(server: Server, status: int, code: str, expected: type) -> None:
    server.replies = [failed(status, code)]
    embedder = server.embedder()
    with pytest.raises(expected) as raised:
        embedder.embed(["a"])
    assert len(server.requests) == 1
    assert KEY not in f"{raised.value} {raised.value.__cause__} {vars(embedder)}"


@pytest.mark.parametrize(
    "reply",
    [
        lambda body: (200, {}, b'{"object": "list", "data": [], "model": "m"}'),
        lambda body: (200, {}, b'{"nothing": 1}'),
        lambda body: (200, {}, b"not json"),
        lambda body: (200, {"content-type": "text/html"}, b"<html>sign in</html>"),
        lambda body: (200, {}, b'{"object":"list","data":[{"index":0,"embedding":"!!"}],"model":"m"}'),
        lambda body: (200, {}, b'{"object":"list","data":[{"index":0,"embedding":null}],"model":"m"}'),
        lambda body: answered(body | {"input": body["input"] * 2}),
        lambda body: (200, {}, b"[]"),
    ],
)
def test_an_unusable_answer_is_said_so(server: Server, reply: Callable[[dict[str, Any]], Reply]) -> None:
    server.replies = [reply]
    with pytest.raises(SourceError):
        server.embedder().embed(["a"])


def test_a_wrong_dimension_names_both(server: Server) -> None:
    server.replies = [answered]
    with pytest.raises(SourceError, match=r"\[3\] numbers a vector, not 5"):
        server.embedder(dimension=5).embed(["a"])


def test_silence_ends_at_the_timeout(server: Server) -> None:
    def silent(body: dict[str, Any]) -> Reply:
        server.released.wait(20)
        return 200, {}, b"{}"

    server.replies = [silent]
    with pytest.raises(TransientError, match="did not answer in time"):
        server.embedder(timeout=0.2, retries=0).embed(["a"])


def test_an_unreachable_server_is_transient() -> None:
    gone = OpenAIEmbedder(
        base_url="http://127.0.0.1:9/v1", model="m", api_key=SecretStr(KEY), dimension=3, retries=0
    )
    with pytest.raises(TransientError):
        gone.embed(["a"])
