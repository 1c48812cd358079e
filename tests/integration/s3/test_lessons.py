"""The daemon over a real S3 server, with a proxy in between that does what networks do on bad days."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from pathlib import Path

import pytest
from support.asking import ask, blob, connect
from support.daemons import Server
from support.fault_proxy import Fault, FaultProxy
from support.s3_fixtures import section
from support.s3_servers import S3Server
from support.waiting import wait_until

Start = Callable[..., Server]
pytestmark = pytest.mark.xdist_group("seaweedfs_restic")

LARGE = os.urandom(3_000_000)


@pytest.fixture
def proxy(weed: S3Server) -> Iterator[FaultProxy]:
    with FaultProxy(weed.port) as running:
        yield running


@pytest.fixture
def server(proxy: FaultProxy, weed: S3Server, start_resticd: Start, tmp_path: Path) -> Server:
    """A daemon over pages of 50 objects that knows its server already."""
    options = weed.options("SeaweedFS", list_version="2", list_chunk="50") | {"endpoint": proxy.url}
    daemon = start_resticd(
        f"store:lessons/{tmp_path.name}", "--append-only", "-v", "--low-level-retries=2", environment=section(options)
    )
    assert ask(daemon.port, "POST", "/?create=true").status == 200
    assert ask(daemon.port, "POST", blob(b"x", "locks"), b"x").status == 200
    assert ask(daemon.port, "DELETE", blob(b"x", "locks")).status == 200
    proxy.seen.clear()
    return daemon


def stored(server: Server, kind: str = "data") -> list[str]:
    answer = ask(server.port, "GET", f"/{kind}/")
    assert answer.status == 200
    return json.loads(answer.body)


def head(path: str, length: int) -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n".encode()


def test_a_truncated_upload_is_no_success(server: Server) -> None:
    """Announced and not sent, small and large: nothing appears, and no 200 is said."""
    for data in (LARGE[:1000], LARGE):
        with connect(server.port) as wire:
            wire.sendall(head(blob(data), len(data)) + data[:-100])
            wire.shutdown(1)
            got = b""
            while part := wire.recv(65536):
                got += part
            assert b" 200 " not in got
        assert stored(server) == []
        assert ask(server.port, "GET", blob(data)).status == 404


def test_a_wrong_hash_is_refused(server: Server) -> None:
    """400, and nothing is stored, whichever way the bytes go."""
    for data in (LARGE[:1000], LARGE):
        assert ask(server.port, "POST", blob(b"other"), data).status == 400
        assert stored(server) == []


def test_an_upload_that_fails_is_no_success(server: Server, proxy: FaultProxy) -> None:
    """The connection breaks in the body, the answer is lost, the server refuses: no 200; the retry is one."""
    for number, fault in enumerate(
        [
            Fault(on="PUT", cut_request=1_000_000, times=2),
            Fault(on="PUT", cut_answer=0, times=2),
            Fault(on="PUT", status=503, times=2),
            Fault(on="PUT", status=403, early=True, times=2),
        ]
    ):
        data = LARGE[number:]
        proxy.inject(fault)
        status = ask(server.port, "POST", blob(data), data).status
        assert 500 <= status < 600
        assert status != 507
        proxy.clear()
        # A connection of the pool may be found broken once more, and a body that streams is not repeated.
        wait_until(lambda data=data: ask(server.port, "POST", blob(data), data).status == 200)
        assert ask(server.port, "GET", blob(data)).body == data


def test_a_late_failure_leaves_the_retry_alone(server: Server, proxy: FaultProxy) -> None:
    """Upload A stalls, B of the same name is stored, A is killed: B is intact."""
    with connect(server.port) as stalled:
        stalled.sendall(head(blob(LARGE), len(LARGE)) + LARGE[:2_000_000])
        wait_until(lambda: [method for method, _ in proxy.seen].count("PUT") == 1)
        assert ask(server.port, "POST", blob(LARGE), LARGE).status == 200
    wait_until(lambda: server.output().count(f"POST {blob(LARGE)}") == 2)  # an access line for each
    assert ask(server.port, "GET", blob(LARGE)).body == LARGE
    assert len(stored(server)) == 1


@pytest.mark.parametrize("kind", ["data", "keys"])
@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=403),
        Fault(status=503),
        Fault(status=404, body=b"<Error><Code>NoSuchBucket</Code></Error>"),
        Fault(cut_answer=500),
        Fault(edit=lambda body: body[: len(body) // 3] + body[len(body) // 2 :]),
    ],
    ids=["refused", "busy", "bucket", "cut", "middle"],
)
def test_a_list_is_whole_or_an_error(server: Server, proxy: FaultProxy, kind: str, fault: Fault) -> None:
    """On the first page a status that is not final for a client, on a later one a broken connection."""
    bodies = [b"%d" % number for number in range(160)]
    with ThreadPoolExecutor(8) as pool:
        answers = pool.map(lambda body: ask(server.port, "POST", blob(body, kind), body).status, bodies)
        assert set(answers) == {200}
    names = {hashlib.sha256(body).hexdigest() for body in bodies}
    for healthy in range(4):
        proxy.clear()
        fault.on, fault.target, fault.hits, fault.times = "GET", "list-type", 0, 1000
        if healthy:
            proxy.inject(Fault(on="GET", target="list-type", times=healthy))
        proxy.inject(fault)
        try:
            answer = ask(server.port, "GET", f"/{kind}/")
        except (HTTPException, ConnectionError):
            assert healthy
        else:
            assert answer.status in (500, 502, 503)
        assert fault.hits
    proxy.clear()
    assert set(stored(server, kind)) == names


def test_only_one_of_two_is_stored(server: Server) -> None:
    """Of many configs at once exactly one is stored, and stays."""
    bodies = [b"config %d" % number for number in range(6)]
    with ThreadPoolExecutor(6) as pool:
        statuses = list(pool.map(lambda body: ask(server.port, "POST", "/config", body).status, bodies))
    assert sorted(statuses) == [200] + [403] * 5
    assert ask(server.port, "GET", "/config").body == bodies[statuses.index(200)]
    assert ask(server.port, "POST", "/config", b"another").status == 403
    assert ask(server.port, "DELETE", "/config").status == 403


def test_append_only_does_not_fail_open(rclone: S3Server, start_resticd: Start, tmp_path: Path) -> None:
    """Where a look at the server has to say what is there, and fails, nothing is stored."""
    with FaultProxy(rclone.port) as proxy:
        environment = section(rclone.options("Rclone") | {"endpoint": proxy.url})
        daemon = start_resticd("store:open/a", "--append-only", "--low-level-retries=2", environment=environment)
        assert ask(daemon.port, "POST", "/?create=true").status == 200
        assert ask(daemon.port, "POST", "/config", b"config").status == 200
        for status in (403, 500):
            proxy.inject(Fault(on="HEAD", status=status, times=1000))
            for path, body in (("/config", b"other"), (blob(b"new"), b"new"), (blob(LARGE), LARGE)):
                assert 500 <= ask(daemon.port, "POST", path, body).status < 600
            proxy.clear()
        assert ask(daemon.port, "GET", "/config").body == b"config"
        assert stored(daemon) == []
