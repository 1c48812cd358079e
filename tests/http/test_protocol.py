"""The table of restic's REST protocol, over a real daemon: local directory and memory."""

from __future__ import annotations

import hashlib
import http.client
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from support.daemons import Server, resticd

V1 = "application/vnd.x.restic.rest.v1"
V2 = "application/vnd.x.restic.rest.v2"
BODY = b"some bytes of a pack"
NAME = hashlib.sha256(BODY).hexdigest()
OTHER = hashlib.sha256(b"other").hexdigest()


class Answer(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    body: bytes


class Client:
    def __init__(self, port: int) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)

    def __call__(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        self.connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        response = self.connection.getresponse()
        return Answer(response.status, response.headers, response.read())


@pytest.fixture(scope="module", params=["local", ":memory:"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    scratch = tmp_path_factory.mktemp("protocol")
    store = scratch / "store" if request.param == "local" else ":memory:"
    with resticd(store, scratch) as running:
        yield running


@pytest.fixture(params=["/", "/user1repo/", "/a/b/c/", "/with%20space/%C3%BC/"])
def repo(request: pytest.FixtureRequest, server: Server) -> Iterator[str]:
    client = Client(server.port)
    assert client("POST", f"{request.param}?create=true").status == 200
    yield request.param
    for kind in ("data", "keys", "locks", "snapshots", "index"):
        for name in json.loads(client("GET", f"{request.param}{kind}/").body):
            client("DELETE", f"{request.param}{kind}/{name}")
    client("DELETE", f"{request.param}config")


@pytest.fixture
def client(server: Server) -> Client:
    return Client(server.port)


def test_create_is_idempotent(client: Client, repo: str) -> None:
    answer = client("POST", f"{repo}?create=true")
    assert (answer.status, answer.body) == (200, b"")


@pytest.mark.parametrize("query", ["", "?create=false", "?create", "?other=true"])
def test_create_needs_its_query(client: Client, repo: str, query: str) -> None:
    assert client("POST", f"{repo}{query}").status == 400


def test_delete_of_a_repository_is_not_implemented(client: Client, repo: str) -> None:
    assert client("DELETE", repo).status == 501


def test_config_is_written_once(client: Client, repo: str) -> None:
    """HEAD, GET and POST of the config; a second one is refused, whatever it is; DELETE makes room."""
    path = f"{repo}config"
    assert client("HEAD", path).status == 404
    assert client("POST", path, b"first").status == 200
    assert client("POST", path, b"first").status == 403
    assert client("POST", path, b"second").status == 403
    answer = client("GET", path)
    assert (answer.status, answer.body) == (200, b"first")
    answer = client("HEAD", path)
    assert (answer.status, answer.headers["content-length"], answer.body) == (200, "5", b"")
    assert client("DELETE", path).status == 200
    assert client("GET", path).status == 404


@pytest.mark.parametrize("kind", ["data", "keys", "locks", "snapshots", "index"])
def test_blob(client: Client, repo: str, kind: str) -> None:
    path = f"{repo}{kind}/{NAME}"
    assert client("HEAD", path).status == 404
    assert client("GET", path).status == 404
    answer = client("POST", path, BODY)
    assert (answer.status, answer.body) == (200, b"")
    answer = client("HEAD", path)
    assert (answer.status, answer.headers["content-length"], answer.body) == (200, str(len(BODY)), b"")
    answer = client("GET", path)
    assert (answer.status, answer.body) == (200, BODY)
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["transfer-encoding"] is None
    assert answer.headers["server"].startswith("resticd/")
    assert client("DELETE", path).status == 200
    assert client("DELETE", path).status == 200
    assert client("GET", path).status == 404


def test_compression_is_never_applied(client: Client, repo: str) -> None:
    client("POST", f"{repo}data/{NAME}", BODY)
    answer = client("GET", f"{repo}data/{NAME}", Accept_Encoding="gzip, deflate, br")
    assert (answer.body, answer.headers["content-encoding"]) == (BODY, None)


def test_lists_in_both_versions(client: Client, repo: str) -> None:
    path = f"{repo}data/"
    answer = client("GET", path)
    assert (answer.status, answer.body, answer.headers["content-type"]) == (200, b"[]", V1)
    client("POST", f"{path}{NAME}", BODY)
    client("POST", f"{path}{OTHER}", b"other")
    for accept in ({}, {"Accept": V1}, {"Accept": "*/*"}):
        answer = client("GET", path, **accept)
        assert answer.headers["content-type"] == V1
        assert sorted(json.loads(answer.body)) == sorted([NAME, OTHER])
    answer = client("GET", path, Accept=V2)
    assert answer.headers["content-type"] == V2
    sizes = {entry["name"]: entry["size"] for entry in json.loads(answer.body)}
    assert sizes == {NAME: len(BODY), OTHER: 5}


def test_list_of_a_repository_that_is_not_there_is_empty(client: Client) -> None:
    answer = client("GET", "/never/made/keys/", Accept=V2)
    assert (answer.status, answer.body) == (200, b"[]")


@pytest.mark.parametrize(
    ("header", "expected", "content_range"),
    [
        ("bytes=2-5", BODY[2:6], f"bytes 2-5/{len(BODY)}"),
        ("bytes=5-", BODY[5:], f"bytes 5-{len(BODY) - 1}/{len(BODY)}"),
        ("bytes=-4", BODY[-4:], f"bytes {len(BODY) - 4}-{len(BODY) - 1}/{len(BODY)}"),
        ("bytes=0-1000", BODY, f"bytes 0-{len(BODY) - 1}/{len(BODY)}"),
        ("bytes=-1000", BODY, f"bytes 0-{len(BODY) - 1}/{len(BODY)}"),
    ],
)
def test_range(client: Client, repo: str, header: str, expected: bytes, content_range: str) -> None:
    client("POST", f"{repo}data/{NAME}", BODY)
    answer = client("GET", f"{repo}data/{NAME}", Range=header)
    assert (answer.status, answer.body, answer.headers["content-range"]) == (206, expected, content_range)
    assert answer.headers["content-length"] == str(len(expected))


@pytest.mark.parametrize("header", ["bytes=20-", "bytes=20-30", "bytes=-0"])
def test_range_outside_of_the_file(client: Client, repo: str, header: str) -> None:
    client("POST", f"{repo}data/{NAME}", BODY)
    answer = client("GET", f"{repo}data/{NAME}", Range=header)
    assert (answer.status, answer.headers["content-range"]) == (416, f"bytes */{len(BODY)}")


@pytest.mark.parametrize("header", ["bytes=5-2", "bytes=x", "lines=1-2", "bytes=0-1,3-4", "bytes=-"])
def test_a_malformed_range_is_ignored(client: Client, repo: str, header: str) -> None:
    client("POST", f"{repo}data/{NAME}", BODY)
    answer = client("GET", f"{repo}data/{NAME}", Range=header)
    assert (answer.status, answer.body) == (200, BODY)


def test_upload_again_is_a_success(client: Client, repo: str) -> None:
    """A retried upload finds its own bytes; other bytes under the name are refused and change nothing."""
    path = f"{repo}data/{NAME}"
    assert client("POST", path, BODY).status == 200
    assert client("POST", path, BODY).status == 200
    assert client("POST", path, b"others").status == 403
    assert client("GET", path).body == BODY


def test_wrong_hash_is_refused(client: Client, repo: str) -> None:
    assert client("POST", f"{repo}data/{OTHER}", BODY).status == 400
    assert client("HEAD", f"{repo}data/{OTHER}").status == 404
    assert json.loads(client("GET", f"{repo}data/").body) == []


def test_empty_file(client: Client, repo: str) -> None:
    name = hashlib.sha256(b"").hexdigest()
    assert client("POST", f"{repo}keys/{name}", b"").status == 200
    answer = client("GET", f"{repo}keys/{name}")
    assert (answer.status, answer.body, answer.headers["content-length"]) == (200, b"", "0")
    assert client("GET", f"{repo}keys/{name}", Range="bytes=0-").status == 416


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PUT", "", "DELETE, POST"),
        ("GET", "", "DELETE, POST"),
        ("HEAD", "", "DELETE, POST"),
        ("POST", "data/", "GET, HEAD"),
        ("DELETE", "keys/", "GET, HEAD"),
        ("PUT", "config", "DELETE, GET, HEAD, POST"),
        ("PATCH", f"data/{NAME}", "DELETE, GET, HEAD, POST"),
    ],
)
def test_method_not_allowed(client: Client, repo: str, method: str, path: str, allow: str) -> None:
    answer = client(method, f"{repo}{path}")
    assert (answer.status, answer.headers["allow"]) == (405, allow)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/a/../config", 400),
        ("/a/%2e%2e/config", 400),
        ("/a//config", 400),
        ("//config", 400),
        ("/a%2Fb/config", 400),
        ("/a%5Cb/config", 400),
        ("/a%00b/config", 400),
        ("/%ff/config", 400),
        ("/" + "x" * 300 + "/config", 400),
        ("/data/readme", 404),
        (f"/data/{NAME.upper()}", 404),
        (f"/data/{NAME}/", 404),
        (f"/data/{NAME[:63]}", 404),
        ("/data/config", 404),
        ("/locks/config", 404),
        ("/config/", 404),
        ("/data/keys/", 404),
        (f"/a/keys/data/{NAME}", 404),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE"])
def test_paths_outside_of_the_grammar(server: Server, method: str, path: str, status: int) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as wire:  # http.client would tidy paths
        wire.sendall(f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode())
        assert wire.makefile("rb").readline().startswith(f"HTTP/1.1 {status} ".encode())


def test_delete_of_a_repository_where_it_is_allowed(tmp_path: Path) -> None:
    """All files of the repository go, config first; a repository inside of it and foreign files stay."""
    store = tmp_path / "store"
    with resticd(store, tmp_path, "--delete-repos") as server:
        client = Client(server.port)
        for path in ("/a/", "/a/inner/"):
            client("POST", f"{path}?create=true")
            client("POST", f"{path}config", b"config")
            client("POST", f"{path}data/{NAME}", BODY)
        assert client("DELETE", "/a/").status == 200
        assert client("HEAD", "/a/config").status == 404
        assert client("HEAD", f"/a/data/{NAME}").status == 404
        assert client("GET", f"/a/inner/data/{NAME}").body == BODY
        assert client("DELETE", "/a/inner/").status == 200
        assert client("DELETE", "/a/").status == 200
        assert not (store / "a").exists()
