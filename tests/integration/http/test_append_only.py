"""``--append-only`` against a client that tries everything."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.asking import Answer, ask, blob
from support.daemons import Server
from support.restic import Restic
from support.sequences import make_files, restore_and_compare

Start = Callable[..., Server]
KINDS = ("data", "keys", "locks", "snapshots", "index")
BODY = b"what is stored stays stored"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def server(start_resticd: Start, store: Path) -> Server:
    return start_resticd(store, "--append-only")


def files_of(store: Path) -> dict[str, bytes]:
    return {str(path.relative_to(store)): path.read_bytes() for path in store.rglob("*") if path.is_file()}


@pytest.mark.parametrize("repository", ["/", "/laptop/"])
def test_only_locks_are_deleted(server: Server, store: Path, repository: str) -> None:
    """Files of every type, also ones that are not there, the config, directories and the repository."""
    assert ask(server.port, "POST", f"{repository}config", b"config").status == 200
    for kind in KINDS:
        assert ask(server.port, "POST", blob(BODY, kind, repository), BODY).status == 200
    before = files_of(store)
    for kind in set(KINDS) - {"locks"}:
        assert ask(server.port, "DELETE", blob(BODY, kind, repository)).status == 403
        assert ask(server.port, "DELETE", blob(b"missing", kind, repository)).status == 403
    assert ask(server.port, "DELETE", f"{repository}config").status == 403
    for path in (repository, *(f"{repository}{kind}/" for kind in KINDS)):
        assert ask(server.port, "DELETE", path).status in (403, 405)
    assert files_of(store) == before
    assert ask(server.port, "DELETE", blob(BODY, "locks", repository)).status == 200
    assert len(files_of(store)) == len(before) - 1


def test_a_repository_is_not_deleted_even_where_that_is_allowed(start_resticd: Start, store: Path) -> None:
    server = start_resticd(store, "--append-only", "--delete-repos")
    assert ask(server.port, "POST", "/a/config", b"config").status == 200
    assert ask(server.port, "DELETE", "/a/").status == 403
    assert list(files_of(store)) == ["a/config"]


def test_nothing_is_overwritten(server: Server, store: Path) -> None:
    """Neither by other bytes, by none, by an upload cut short or of unknown length, nor by other methods."""
    paths = [blob(BODY, kind) for kind in KINDS]
    assert ask(server.port, "POST", "/config", b"config").status == 200
    for path in paths:
        assert ask(server.port, "POST", path, BODY).status == 200
    before = files_of(store)
    chunked = {"Transfer-Encoding": "chunked"}
    for path in (*paths, "/config"):
        for body in (b"other bytes", b"", os.urandom(2_000_000)):
            assert ask(server.port, "POST", path, body).status == 403
        for method in ("PUT", "PATCH", "MOVE", "MKCOL", "COPY"):
            assert ask(server.port, method, path, b"other bytes").status in (405, 501)
        wire_body = b"5\r\nother\r\n0\r\n\r\n"
        assert ask(server.port, "POST", path, wire_body, headers=chunked).status in (400, 403)
    assert ask(server.port, "POST", "/config", b"config").status == 403
    assert ask(server.port, "POST", "/?create=true").status == 200
    assert files_of(store) == before
    # A retry of what is stored already changes nothing, and is a success.
    assert ask(server.port, "POST", paths[0], BODY).status == 200
    assert files_of(store) == before


@pytest.mark.parametrize("kind", ["locks", "data", "config"])
def test_a_repository_cannot_be_named_like_a_type(server: Server, store: Path, kind: str) -> None:
    """So no path of another type ever reads as one below ``locks/``."""
    digest = hashlib.sha256(BODY).hexdigest()
    for method in ("POST", "DELETE", "GET", "HEAD"):
        for path in (f"/{kind}/config", f"/{kind}/data/{digest}", f"/{kind}/locks/{digest}", f"/a/{kind}/b/config"):
            assert ask(server.port, method, path, b"config" if method == "POST" else b"").status == 404
    assert files_of(store) == {}


def test_a_path_is_what_it_parses_to(server: Server, store: Path) -> None:
    """No spelling makes a file of another type a lock."""
    assert ask(server.port, "POST", blob(BODY), BODY).status == 200
    before = files_of(store)
    digest = hashlib.sha256(BODY).hexdigest()
    for path in (
        f"/locks/../data/{digest}",
        f"/locks/%2e%2e/data/{digest}",
        f"/locks%2F..%2Fdata/{digest}",
        f"/data/{digest}/../../locks/{digest}",
        f"/data/{digest}%00/locks/{digest}",
        f"//data/{digest}",
        f"/data/{digest}/",
        f"/data/{digest}?/locks/{digest}",
        f"/data/{digest}%3F/locks/x",
        f"/%64ata/{digest}",
        "/locks/../config",
    ):
        assert ask(server.port, "DELETE", path).status in (400, 403, 404)
    assert files_of(store) == before


def test_of_parallel_uploads_of_one_name_exactly_one_is_stored(server: Server, store: Path) -> None:
    """Of a config the others are refused; of other files they are retries of the same bytes."""
    configs = [os.urandom(200_000) for _ in range(8)]

    def post(path: str, body: bytes) -> Answer:
        return ask(server.port, "POST", path, body)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(post, ["/config"] * 8, configs))
        assert sorted(answer.status for answer in answers) == [200, *[403] * 7]
        (stored,) = [body for answer, body in zip(answers, configs, strict=True) if answer.status == 200]
        assert (store / "config").read_bytes() == stored
        body = os.urandom(500_000)
        assert {answer.status for answer in pool.map(post, [blob(body)] * 8, [body] * 8)} == {200}
    assert set(files_of(store).values()) == {stored, body}
    assert len(files_of(store)) == 2


def test_a_client_backs_up_and_unlocks_and_cannot_forget(server: Server, store: Path, tmp_path: Path) -> None:
    files = make_files(tmp_path / "files", count=3, big=1_000_000)
    restic = Restic(server.repository("laptop"), tmp_path)
    restic("init")
    restic("backup", files)
    stale = json.dumps({"time": "2020-01-01T00:00:00Z"}).encode()
    assert ask(server.port, "POST", blob(stale, "locks", "/laptop/"), stale).status == 200
    restic("unlock", "--remove-all")
    assert ask(server.port, "GET", "/laptop/locks/").body == b"[]"
    restic("backup", files)
    before = {name: data for name, data in files_of(store).items() if "/locks/" not in name}
    assert restic("forget", "--keep-last", "1", "--prune", status=None).returncode != 0
    after = files_of(store)
    assert {name: after[name] for name in before} == before
    restic("unlock", "--remove-all")
    restore_and_compare(restic, files, tmp_path / "restored")
