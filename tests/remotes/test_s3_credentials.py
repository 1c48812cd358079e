"""Where keys for S3 come from, and how they are kept fresh."""

from __future__ import annotations

import datetime
import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from support.waiting import until
from twisted.internet.defer import CancelledError, Deferred, gatherResults

from resticd.errors import ConfigurationError, StorageError
from resticd.remotes.s3_credentials import Credentials, Keys
from resticd.remotes.s3_options import S3Options
from resticd.workers import Workers


class Source:
    """What Amazon's machines have: endpoints for containers, for instances and for roles. No real server is one.

    :ivar serial: counts the keys that were given away; the last ones are ``key-SERIAL``.
    :ivar lifetime: of the next ones, in seconds.
    :ivar broken: answer 500.
    :ivar gate: answers wait while it is not set.
    """

    def __init__(self) -> None:
        self.serial = 0
        self.lifetime = 3600.0
        self.broken = False
        self.seen: list[str] = []
        self.bodies: list[bytes] = []
        self.gate = threading.Event()
        self.gate.set()
        source = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                source.gate.wait(60)
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                source.seen.append(self.path.partition("?")[0])
                source.bodies.append(body)
                status, answer = source.answer(self.path, body)
                self.send_response(status)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            do_POST = do_PUT = do_GET

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def stop(self) -> None:
        self.gate.set()
        self._server.shutdown()
        self._server.server_close()

    def answer(self, path: str, body: bytes) -> tuple[int, bytes]:
        if self.broken:
            return 500, b"hunter2"
        if path.startswith("/latest/api/token"):
            return 200, b"token"
        if path == "/latest/meta-data/iam/security-credentials/":
            return 200, b"role"
        self.serial += 1
        until = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=self.lifetime)
        expiration = f"{until:%Y-%m-%dT%H:%M:%SZ}"
        if b"Action=" in body:
            action = body.partition(b"Action=")[2].partition(b"&")[0].decode()
            return 200, (
                f"<{action}Response xmlns='https://sts.amazonaws.com/doc/2011-06-15/'><{action}Result><Credentials>"
                f"<AccessKeyId>key-{self.serial}</AccessKeyId><SecretAccessKey>secret</SecretAccessKey>"
                f"<SessionToken>token</SessionToken><Expiration>{expiration}</Expiration></Credentials>"
                f"</{action}Result></{action}Response>"
            ).encode()
        return 200, json.dumps(
            {
                "Code": "Success",
                "AccessKeyId": f"key-{self.serial}",
                "SecretAccessKey": "secret",
                "Token": "token",
                "Expiration": expiration,
            }
        ).encode()


@pytest.fixture
def source() -> Iterator[Source]:
    running = Source()
    yield running
    running.stop()


@pytest.fixture(autouse=True)
def _nothing_around(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No source of keys but the test's own."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def credentials(workers: Workers, **options: str) -> Credentials:
    return Credentials(S3Options.parse({"env_auth": "true"} | options), workers)


@pytest_twisted.ensureDeferred
async def test_given_keys(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the configuration says comes first; without env_auth nothing else counts."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "environment")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    given = {"access_key_id": "a", "secret_access_key": "b", "session_token": "c"}
    assert await credentials(workers, **given).get() == Keys("a", "b", "c")
    assert await credentials(workers, **given, env_auth="false").get() == Keys("a", "b", "c")
    assert await credentials(workers, env_auth="false").get() is None
    for half in ("access_key_id", "secret_access_key"):
        with pytest.raises(ConfigurationError, match="is missing"):
            credentials(workers, **{half: "x"})


@pytest_twisted.ensureDeferred
async def test_environment(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables of the environment."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "c")
    assert await credentials(workers).get() == Keys("a", "b", "c")


@pytest_twisted.ensureDeferred
async def test_profiles(workers: Workers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A profile of the shared file, which may lie elsewhere; and one whose keys a program prints."""
    file = tmp_path / "shared"
    printed = {"Version": 1, "AccessKeyId": "printed", "SecretAccessKey": "d"}
    (tmp_path / "printed").write_text(json.dumps(printed))
    file.write_text(
        "[default]\naws_access_key_id = a\naws_secret_access_key = b\n"
        "[other]\naws_access_key_id = c\naws_secret_access_key = d\n"
    )
    config = tmp_path / "config"
    config.write_text(f"[profile program]\ncredential_process = cat {tmp_path / 'printed'}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    shared = {"shared_credentials_file": str(file)}
    assert await credentials(workers, **shared).get() == Keys("a", "b")
    assert await credentials(workers, **shared, profile="other").get() == Keys("c", "d")
    assert await credentials(workers, profile="program").get() == Keys("printed", "d")
    with pytest.raises(StorageError, match="ProfileNotFound"):
        await credentials(workers, profile="nobody").get()


@pytest_twisted.ensureDeferred
async def test_containers(workers: Workers, monkeypatch: pytest.MonkeyPatch, source: Source) -> None:
    """The endpoint that a container's environment names."""
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{source.url}/container")
    assert await credentials(workers).get() == Keys("key-1", "secret", "token")
    assert source.seen == ["/container"]


@pytest_twisted.ensureDeferred
async def test_instances(workers: Workers, monkeypatch: pytest.MonkeyPatch, source: Source) -> None:
    """The metadata of a virtual machine, with a token."""
    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", source.url)
    assert await credentials(workers).get() == Keys("key-1", "secret", "token")
    assert source.seen[0] == "/latest/api/token"


@pytest_twisted.ensureDeferred
async def test_web_identity(workers: Workers, monkeypatch: pytest.MonkeyPatch, source: Source, tmp_path: Path) -> None:
    """A token in a file becomes the keys of a role."""
    (tmp_path / "token").write_text("identity")
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/r")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", source.url)
    assert await credentials(workers).get() == Keys("key-1", "secret", "token")
    assert b"WebIdentityToken=identity" in source.bodies[0]


@pytest_twisted.ensureDeferred
async def test_a_role(workers: Workers, source: Source) -> None:
    """``role_arn`` is assumed with the given keys, at ``sts_endpoint``."""
    options = {
        "access_key_id": "a",
        "secret_access_key": "b",
        "role_arn": "arn:aws:iam::123456789012:role/r",
        "role_session_name": "backup",
        "role_session_duration": "30m",
        "role_external_id": "external",
        "sts_endpoint": source.url,
        "env_auth": "false",
    }
    found = credentials(workers, **options)
    assert found.renewable
    assert await found.get() == Keys("key-1", "secret", "token")
    for part in (b"RoleSessionName=backup", b"DurationSeconds=1800", b"ExternalId=external"):
        assert part in source.bodies[0]


@pytest_twisted.ensureDeferred
async def test_nothing_found(workers: Workers) -> None:
    """It is a passing fault: the keys may be put there."""
    with pytest.raises(StorageError, match="no credentials found"):
        await credentials(workers).get()


@pytest_twisted.ensureDeferred
async def test_refreshed_before_they_expire(workers: Workers, monkeypatch: pytest.MonkeyPatch, source: Source) -> None:
    """Keys that expire soon still serve while a worker fetches others; nobody waits for them."""
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{source.url}/container")
    found = credentials(workers)
    source.lifetime = 800
    first = await found.get()
    source.gate.clear()
    source.lifetime = 3600
    for _ in range(5):  # the source does not answer, and we do not wait for it
        asked = found.get()
        assert asked.called
        assert await asked == first
    source.gate.set()

    def renewed() -> bool:
        answers: list[Keys | None] = []
        found.get().addCallback(answers.append)
        return answers != [first]

    await until(renewed, 60)
    fetched = source.serial
    assert await found.get() == Keys(f"key-{fetched}", "secret", "token")
    assert source.serial == fetched


@pytest_twisted.ensureDeferred
async def test_expired_keys_are_waited_for(workers: Workers, monkeypatch: pytest.MonkeyPatch, source: Source) -> None:
    """Keys that are about to expire are not used; many who ask cause one fetch."""
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{source.url}/container")
    found = credentials(workers)
    asked = [found.get() for _ in range(10)]
    assert set(await gatherResults(asked)) == {Keys("key-1", "secret", "token")}
    assert source.serial == 1
    found.forget()
    assert await found.get() == Keys("key-2", "secret", "token")


@pytest_twisted.ensureDeferred
async def test_a_broken_source(workers: Workers, monkeypatch: pytest.MonkeyPatch, source: Source) -> None:
    """Its failure is told without what it said, and the next who asks tries again."""
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{source.url}/container")
    source.broken = True
    found = credentials(workers)
    with pytest.raises(StorageError, match="cannot get credentials") as caught:
        await found.get()
    assert "hunter2" not in str(caught.value)
    source.broken = False
    assert await found.get() == Keys("key-1", "secret", "token")


@pytest_twisted.ensureDeferred
async def test_cancelled(workers: Workers, monkeypatch: pytest.MonkeyPatch, source: Source) -> None:
    """Who is cancelled is let go at once; the others get their keys."""
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{source.url}/container")
    source.gate.clear()
    found = credentials(workers)
    first: Deferred[Any] = found.get()
    second = found.get()
    first.cancel()
    with pytest.raises(CancelledError):
        await first
    source.gate.set()
    assert await second == Keys("key-1", "secret", "token")


def test_keys_are_not_shown() -> None:
    """Not even their names."""
    assert "hunter2" not in repr(Keys("hunter2", "hunter2", "hunter2"))
