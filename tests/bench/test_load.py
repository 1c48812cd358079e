"""The load client against a real server, and against answers that a real server will not give."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.daemons import Server, rest_server

from bench import load
from bench.corpus import Corpus

SIZE = 300_000


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    """A small one."""
    return Corpus(tmp_path / "corpus", blobs=7, blob_size=SIZE, objects=50)


@pytest.fixture
def server(corpus: Corpus, tmp_path: Path) -> Iterator[Server]:
    """rest-server over the corpus, with an empty repository ``new``."""
    corpus.bulk()
    corpus.many()
    with rest_server(corpus.place, tmp_path) as running:
        load.fetch(running.port, "POST", "/new/?create=true", "Content-Length: 0")
        yield running


def answering(answer: bytes) -> int:
    """The port of a server that answers its first request with these bytes and closes."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with listener, listener.accept()[0] as connection:
            connection.recv(65536)
            connection.sendall(answer)
            connection.shutdown(socket.SHUT_WR)
            connection.recv(65536)

    threading.Thread(target=serve, daemon=True).start()
    return listener.getsockname()[1]


def test_uploads_arrive_whole(server: Server, corpus: Corpus) -> None:
    """What is uploaded is stored byte for byte."""
    blobs = corpus.bulk()
    load.upload(server.port, [(f"/new/data/{name}", path) for name, path in blobs.items()])
    for name, path in blobs.items():
        assert (corpus.place / "new" / "data" / name[:2] / name).read_bytes() == path.read_bytes()


def test_small_uploads_arrive_whole(server: Server, corpus: Corpus) -> None:
    """Bodies in prepared requests are stored under their hashes."""
    bodies = corpus.small(20, 4096, seed=3)
    requests = [load.request("POST", f"/new/data/{name}", body=len(body)) + body for name, body in bodies]
    load.exchange(server.port, requests, 200)
    for name, body in bodies:
        assert (corpus.place / "new" / "data" / name[:2] / name).read_bytes() == body


def test_downloads_are_as_long_as_they_should(server: Server, corpus: Corpus) -> None:
    """A download of another length than expected is an error."""
    paths = [f"/bulk/data/{name}" for name in corpus.bulk()]
    load.download(server.port, paths * 3, SIZE)
    with pytest.raises(load.Unexpected, match=f"{SIZE} bytes, expected 5"):
        load.download(server.port, paths, 5)


def test_ranges(server: Server, corpus: Corpus) -> None:
    """Every answer to a range is drained before the next request on its connection."""
    name = next(iter(corpus.bulk()))
    requests = [
        load.request("GET", f"/bulk/data/{name}", f"Range: bytes={first}-{first + 65535}") for first in range(100)
    ]
    load.exchange(server.port, requests, 206, 65536)


def test_other_statuses_are_errors(server: Server, corpus: Corpus, tmp_path: Path) -> None:
    """A status that was not expected never counts as work done."""
    absent = "0" * 64
    empty = tmp_path / "empty"
    empty.touch()
    with pytest.raises(load.Unexpected, match="404"):
        load.exchange(server.port, [load.request("HEAD", f"/bulk/data/{absent}")], 200)
    with pytest.raises(load.Unexpected, match="404"):
        load.download(server.port, [f"/bulk/data/{absent}"], SIZE)
    with pytest.raises(load.Unexpected, match="not 200"):
        load.upload(server.port, [(f"/new/data/{absent}", empty)])
    with pytest.raises(load.Unexpected, match="404"):
        load.fetch(server.port, "GET", "/bulk/config")


def test_lists_are_read_to_their_end(server: Server, corpus: Corpus) -> None:
    """A list that comes in chunks is complete."""
    body = load.fetch(server.port, "GET", "/many/data/", f"Accept: {load.LIST_V2}")
    assert body.count(b'"name"') == corpus.many() == 50


def test_an_answer_in_pieces_is_put_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """A head that arrives with a part of the body, and the rest of the body later, are one answer."""
    monkeypatch.setattr(load, "CONNECTIONS", 1)
    body = b"x" * 5000
    load.exchange(answering(b"HTTP/1.1 206 Partial\r\n\r\n" + body), [load.request("GET", "/")], 206, len(body))


@pytest.mark.parametrize("answer", [b"HTTP/1.1 206 Partial", b"HTTP/1.1 206 Partial\r\n\r\nxxx"], ids=["head", "body"])
def test_a_broken_answer_is_an_error(answer: bytes) -> None:
    """An answer that breaks off in its head or in its body is an error."""
    with pytest.raises(load.Unexpected, match="closed"):
        load.exchange(answering(answer), [load.request("GET", "/")], 206, 5000)
