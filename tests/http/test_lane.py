"""The fast lane answers what is usual, and keeps out of what is not."""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncGenerator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import pytest_twisted
from support.blobstore import LARGE_NAME, MISSING, SMALL_NAME, fill
from support.waiting import until
from twisted.internet import reactor
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from resticd.auth.chain import make_authenticator
from resticd.events import Change
from resticd.http.channel import Channel
from resticd.http.gate import Gate
from resticd.http.lane import Lane
from resticd.http.site import Site
from resticd.remotes.local import LocalRemote
from resticd.repository.operations import Repositories
from resticd.repository.policy import Policy
from resticd.workers import Workers


class Stage(NamedTuple):
    """A site, and a connection to it."""

    site: Site
    channel: Channel
    transport: StringTransport
    events: list[object]
    store: Path


@pytest_twisted.async_yield_fixture
async def stage(tmp_path: Path, workers: Workers) -> AsyncGenerator[Stage, None]:
    fill(tmp_path / "store")
    remote = LocalRemote(tmp_path / "store", workers)
    await remote.start()
    await remote._swept()  # which takes the file of an upload that comes meanwhile for a leftover
    events: list[object] = []
    sink = SimpleNamespace(emit=events.append)
    repositories = Repositories(remote, Policy(), workers, sink)
    gate = Gate(repositories, make_authenticator(workers=workers, clock=reactor))
    site = Site(gate.resource(), reactor, workers, sink)
    transport = StringTransport()
    channel = site.buildProtocol(None)._http1()
    channel.makeConnection(transport)
    yield Stage(site, channel, transport, events, tmp_path / "store")
    channel.connectionLost(Failure(ConnectionDone()))
    await remote.stop()


BLOB = f"/r/data/{SMALL_NAME}"
FRESH = b"fresh" * 20
FRESH_NAME = hashlib.sha256(FRESH).hexdigest()
POST = f"POST /r/keys/{FRESH_NAME} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n".encode() + FRESH
HEAD = f"HEAD {BLOB} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


def test_who_answers(stage: Stage) -> None:
    """The usual is answered by the lane, from the second look on; all else is not, and leaves no trace."""

    def answered(head: str) -> bool:
        stage.transport.clear()
        done = stage.site.lane.answer(stage.channel, head.replace("\n", "\r\n").encode())
        assert done == bool(stage.transport.value()) == bool(stage.events)
        stage.events.clear()
        return done

    assert answered(f"HEAD {BLOB} HTTP/1.1\nHost: x\n\n")
    assert answered(f"GET {BLOB} HTTP/1.1\nHost: x\n\n")
    assert answered(f"GET {BLOB} HTTP/1.1\nHost: x\nRange: bytes=1-5\n\n")
    assert answered("GET /r/config HTTP/1.1\nHost: x\nAccept: */*\n\n")
    assert answered(f"HEAD /r/data/{LARGE_NAME} HTTP/1.1\nHost: x\n\n")
    for other in (
        f"GET /r/data/{LARGE_NAME} HTTP/1.1\nHost: x\n\n",
        f"GET /r/data/{MISSING} HTTP/1.1\nHost: x\n\n",
        f"DELETE {BLOB} HTTP/1.1\nHost: x\n\n",
        "GET /r/data/ HTTP/1.1\nHost: x\n\n",
        f"GET {BLOB} HTTP/1.1\nHost: x\nConnection: close\n\n",
        f"GET {BLOB} HTTP/1.1\nHost: x\nContent-Length: 0\n\n",
        f"GET {BLOB} HTTP/1.1\nHost: x\n\nGET {BLOB} HTTP/1.1\nHost: x\n\n",
        f"GET {BLOB} HTTP/1.1\nHost: x\n",
        f"POST {BLOB} HTTP/1.1\nHost: x\n\n",
        f"POST {BLOB} HTTP/1.1\nHost: x\nContent-Length: 5\n\n1234",
        f"POST {BLOB} HTTP/1.1\nHost: x\nContent-Length: 3\n\n1234",
        "POST /r/data/ HTTP/1.1\nHost: x\nContent-Length: 4\n\n1234",
    ):
        assert not answered(other)


def heads(stage: Stage) -> list[bytes]:
    """The first lines of what was answered."""
    return re.findall(rb"HTTP/1.1 [^\r]+", stage.transport.value())


@pytest_twisted.ensureDeferred
async def test_an_upload(stage: Stage) -> None:
    """It is stored before it is answered, told of once, and what comes meanwhile is answered behind it."""
    (stage.store / "r/keys" / SMALL_NAME).rmdir()
    stage.channel.dataReceived(POST)
    stage.channel.dataReceived(HEAD[:20])
    assert stage.transport.producerState == "paused"
    stage.channel.dataReceived(HEAD[20:])
    assert heads(stage) == []
    await until(lambda: len(heads(stage)) == 2)
    assert stage.transport.producerState == "producing"
    assert (stage.store / "r/keys" / FRESH_NAME).read_bytes() == FRESH
    change, transfer, done, *_ = stage.events
    assert (change.action, change.name, change.size, change.outcome) == ("store", FRESH_NAME, 100, "done")
    assert (transfer.transfer.upload, transfer.transfer.moved, transfer.ok) == (True, 100, True)
    assert (done.method, done.status, done.received, done.sent) == ("POST", 200, 100, 0)
    stage.transport.clear()
    stage.channel.dataReceived(HEAD)
    assert heads(stage) == [b"HTTP/1.1 200 OK"]


@pytest_twisted.ensureDeferred
async def test_an_upload_that_fails(stage: Stage) -> None:
    """The usual way refuses it, and the sink hears of one attempt."""
    stage.channel.dataReceived(POST.replace(FRESH, FRESH[::-1]))
    stage.channel.dataReceived(HEAD)
    await until(lambda: len(heads(stage)) == 2)
    assert heads(stage) == [b"HTTP/1.1 400 Bad Request", b"HTTP/1.1 200 OK"]
    changes = [event for event in stage.events if isinstance(event, Change)]
    assert [change.outcome for change in changes] == ["failed"]


@pytest_twisted.ensureDeferred
async def test_behind_a_body(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """An upload that the routes have taken leaves the connection at rest: the lane is asked again."""
    answered: list[bool] = []
    answer = Lane.answer

    def noted(*arguments: Any) -> bool:
        answered.append(answer(*arguments))
        return answered[-1]

    monkeypatch.setattr(Lane, "answer", noted)
    stage.channel.dataReceived(POST.replace(b"Host: x", b"Host: x\r\nX-Unusual: 1"))
    await until(lambda: len(heads(stage)) == 1)
    stage.channel.dataReceived(HEAD)
    assert answered == [False, True]


@pytest_twisted.ensureDeferred
async def test_an_upload_while_the_site_ends(stage: Stage) -> None:
    """It is the connection's last request, and says so."""
    stage.channel.dataReceived(HEAD)
    stage.channel.dataReceived(POST)
    stage.channel.finish()
    assert not stage.transport.disconnecting
    await until(lambda: len(heads(stage)) == 2)
    assert b"\r\nConnection: close\r\n" in stage.transport.value()
    assert stage.transport.disconnecting


@pytest_twisted.ensureDeferred
async def test_an_upload_whose_client_goes(stage: Stage) -> None:
    """All of it had come, so it is stored."""
    stage.channel.dataReceived(POST)
    stage.channel.dataReceived(HEAD)
    stage.channel.connectionLost(Failure(ConnectionDone()))
    await until((stage.store / "r/keys" / FRESH_NAME).exists)
    await until(lambda: any(isinstance(event, Change) for event in stage.events))
