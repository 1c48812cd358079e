"""What the S3 driver sends: how many requests, to which host, with which headers."""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import botocore.auth
import pytest
import pytest_twisted
from conformance import Source, everything, get, put, sha256
from support.fault_proxy import Fault, FaultProxy
from support.s3_servers import DOMAIN, S3Server
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults

from resticd.errors import Corrupt, NotFound, StorageError
from resticd.remotes.s3 import S3Remote, make_s3
from resticd.remotes.s3_manners import Manners
from resticd.remotes.wrappers import verifying
from resticd.remotes.wrappers.cache import CacheRemote
from resticd.remotes.wrappers.verifying import VerifyingRemote
from resticd.streams import Span
from resticd.transport.proxies import Proxies, Proxy
from resticd.transport.settings import ClientSettings
from resticd.workers import Workers

pytestmark = pytest.mark.xdist_group("seaweedfs")

LARGE = os.urandom(3_000_000)


@pytest.fixture
def proxy(weed: S3Server) -> Iterator[FaultProxy]:
    with FaultProxy(weed.port) as running:
        yield running


@pytest.fixture
def make(proxy: FaultProxy, weed: S3Server, workers: Workers) -> Any:
    """Makes remotes over one fresh prefix, through the proxy; an option that is empty is left out."""
    fresh = f"requests/{uuid4()}"
    made = []

    def start(
        place: str = fresh, settings: ClientSettings | None = None, provider: str = "SeaweedFS", **options: str
    ) -> S3Remote:
        described = weed.options(provider) | {"endpoint": proxy.url} | options
        wanted = {name: value for name, value in described.items() if value}
        settings = settings or ClientSettings(timeout=20, low_level_retries=2)
        made.append(make_s3(wanted, place, reactor, workers, settings))
        return made[-1]

    yield start
    for remote in made:
        pytest_twisted.blockon(remote.stop())


async def know(remote: S3Remote, proxy: FaultProxy) -> None:
    """Make the bucket and find out what the server does."""
    await remote.make("")
    await put(remote, "first", b"x")
    proxy.seen.clear()
    proxy.heads.clear()


# How many.


@pytest_twisted.ensureDeferred
async def test_one_request_for_one_file(make: Any, proxy: FaultProxy) -> None:
    """An upload, small or streamed, is one PUT, a download one GET, of a part too: no look before, none after."""
    remote = make()
    await know(remote, proxy)
    for key, data in (("small", b"small"), ("large", LARGE)):
        await put(remote, key, data)
        assert await get(remote, key) == data
        assert await get(remote, key, Span(1, 3)) == data[1:4]
        await remote.stat(key)
        await remote.delete(key)
    assert [method for method, _ in proxy.seen] == ["PUT", "GET", "GET", "HEAD", "DELETE"] * 2


@pytest_twisted.ensureDeferred
async def test_a_guarded_upload(workers: Workers, rclone: S3Server) -> None:
    """A server that neither judges conditions nor checks hashes is asked before and after."""
    with FaultProxy(rclone.port) as proxy:
        options = rclone.options("Rclone") | {"endpoint": proxy.url}
        remote = make_s3(options, f"guarded/{uuid4()}", reactor, workers, ClientSettings())
        await know(remote, proxy)
        await put(remote, "small", b"small")
        await put(remote, "large", LARGE)
        small = [method for method, target in proxy.seen if target.endswith("/small")]
        assert small == ["HEAD", "PUT", "HEAD"]
        # Its body is on its way while we look.
        large = [method for method, target in proxy.seen if target.endswith("/large")]
        assert sorted(large) == ["HEAD", "HEAD", "PUT"]
        await remote.stop()


@pytest_twisted.ensureDeferred
async def test_a_server_is_asked_once(make: Any, proxy: FaultProxy) -> None:
    """Many first uploads at once wait for one probe, which leaves nothing behind; later ones do not ask again."""
    remote = make()
    await remote.make("")
    await gatherResults([Deferred.fromCoroutine(put(remote, f"{number}", b"x")) for number in range(8)])
    probes = [method for method, target in proxy.seen if target.endswith(".resticd-probe")]
    assert sorted(probes) == ["DELETE", "PUT", "PUT", "PUT"]
    assert probes[-1] == "DELETE"
    await put(remote, "later", b"x")
    assert len([target for _, target in proxy.seen if target.endswith(".resticd-probe")]) == 4
    assert remote.capabilities.conditional_create
    assert len(await everything(remote)) == 9


@pytest_twisted.ensureDeferred
async def test_a_probe_that_failed_is_repeated(make: Any, proxy: FaultProxy) -> None:
    """A fault is not taken for an answer."""
    remote = make()
    await remote.make("")
    proxy.inject(Fault(on="PUT", target=".resticd-probe", status=500, times=2))
    with pytest.raises(StorageError):
        await put(remote, "a", b"x")
    assert not remote.capabilities.conditional_create
    await put(remote, "a", b"x")
    assert remote.capabilities.conditional_create


@pytest_twisted.ensureDeferred
async def test_buckets(make: Any, proxy: FaultProxy) -> None:
    """A missing bucket is made with its ACL, one that is there is looked at, neither with ``no_check_bucket``."""
    name = f"b{uuid4()}"
    await make(name, no_check_bucket="true").make("")
    assert proxy.seen == []
    remote = make(f"{name}/x", bucket_acl="private")
    await remote.make("")
    await remote.make("")
    assert proxy.seen == [("HEAD", f"/{name}/"), ("PUT", f"/{name}/"), ("HEAD", f"/{name}/")]
    assert proxy.heads[1].get("x-amz-acl") == "private"


@pytest_twisted.ensureDeferred
async def test_a_missing_bucket_is_no_missing_object(make: Any) -> None:
    """Whatever is asked of it is a fault, so that no client takes a repository for gone."""
    remote = make(f"b{uuid4()}")
    with pytest.raises(StorageError):
        await put(remote, "a", b"x")
    with pytest.raises(StorageError):
        await remote.stat("a")
    with pytest.raises(StorageError):
        await everything(remote)


# Where to.


@pytest_twisted.ensureDeferred
async def test_the_bucket_before_the_hosts_name(make: Any, proxy: FaultProxy) -> None:
    """Virtual-host style, with a proxy that the environment names: signatures, objects and lists are right."""
    proxies = Proxies.from_environment({"HTTP_PROXY": proxy.url})
    assert proxies.http == Proxy("127.0.0.1", proxy.port)
    remote = make(
        f"virtual/{uuid4()}",
        ClientSettings(proxies=proxies),
        provider="Wasabi",
        endpoint=f"http://{DOMAIN}",
        list_version="1",
    )
    await remote.make("")
    await put(remote, "with space/ünïcode+&%", LARGE)
    assert await get(remote, "with space/ünïcode+&%") == LARGE
    assert set(await everything(remote)) == {"with space/ünïcode+&%"}
    assert {target[: target.index("/", 7)] for _, target in proxy.seen} == {f"http://virtual.{DOMAIN}"}
    assert {head.get("host") for head in proxy.heads} == {f"virtual.{DOMAIN}"}


# With what.


def signed_headers(head: Any) -> list[str]:
    authorization = head.get("authorization")
    return authorization.partition("SignedHeaders=")[2].partition(",")[0].split(";")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"storage_class": "GLACIER_IR"}, {"x-amz-storage-class": "GLACIER_IR"}),
        ({"acl": "bucket-owner-full-control"}, {"x-amz-acl": "bucket-owner-full-control"}),
        ({"server_side_encryption": "AES256"}, {"x-amz-server-side-encryption": "AES256"}),
        (
            {"server_side_encryption": "aws:kms", "sse_kms_key_id": "arn:x"},
            {"x-amz-server-side-encryption": "aws:kms", "x-amz-server-side-encryption-aws-kms-key-id": "arn:x"},
        ),
    ],
    ids=lambda value: "",
)
@pytest_twisted.ensureDeferred
async def test_what_comes_with_new_objects(
    make: Any, proxy: FaultProxy, options: dict[str, str], expected: dict[str, str]
) -> None:
    """Small, streamed and in parts, and signed; what reads has nothing of it."""
    await make().make("")
    proxy.seen.clear()
    proxy.heads.clear()
    remote = make(**options)
    remote._server.known = Manners(True, True, True)
    proxy.inject(Fault(on="PUT", status=200, times=10))
    await put(remote, "small", b"small")
    await put(remote, "large", LARGE)
    proxy.inject(Fault(on="POST", status=403, times=10))
    with pytest.raises(StorageError):
        await put(remote, "parts", os.urandom(6_000_000), size=None)
    assert [method for method, _ in proxy.seen] == ["PUT", "PUT", "POST"]
    for head in proxy.heads:
        assert {name: head.get(name) for name in expected} == expected
        assert set(expected) <= set(signed_headers(head))
    with pytest.raises(NotFound):
        await remote.open("nothing")
    assert [proxy.heads[-1].get(name) for name in expected] == [None] * len(expected)


@pytest_twisted.ensureDeferred
async def test_who_pays(make: Any, proxy: FaultProxy) -> None:
    """With requester_pays every request says so."""
    remote = make(requester_pays="true")
    await know(remote, proxy)
    await put(remote, "a", LARGE)
    await get(remote, "a")
    await remote.stat("a")
    await everything(remote)
    await remote.delete("a")
    assert {head.get("x-amz-request-payer") for head in proxy.heads} == {"requester"}


@pytest_twisted.ensureDeferred
async def test_a_customers_key(make: Any, proxy: FaultProxy) -> None:
    """The server encrypts with a key that it does not keep; without it nothing is read, and nothing looks missing."""
    remote = make(sse_customer_algorithm="AES256", sse_customer_key="k" * 32)
    await know(remote, proxy)
    await put(remote, "small", b"small")
    await put(remote, "large", LARGE)
    assert await get(remote, "small") == b"small"
    assert await get(remote, "large", Span(100_000, 299_999)) == LARGE[100_000:300_000]
    assert (await remote.stat("large")).size == len(LARGE)
    assert {entry.key: entry.size for entry in (await everything(remote)).values()}["large"] == len(LARGE)
    parts = os.urandom(12_000_000)
    await put(remote, "parts", parts, size=None)
    assert await get(remote, "parts") == parts
    with pytest.raises(StorageError):
        await get(make(), "small")


@pytest_twisted.ensureDeferred
async def test_payloads_are_signed(make: Any, proxy: FaultProxy) -> None:
    """The hash in the signature is the name's, also of a body that is only on its way; or none where that is wished."""
    for option, expected in (("", sha256(LARGE)), ("true", "UNSIGNED-PAYLOAD")):
        remote = make(f"requests/{uuid4()}", use_unsigned_payload=option)
        await know(remote, proxy)
        await put(remote, "large", LARGE)
        assert proxy.heads[0].get("x-amz-content-sha256") == expected


@pytest_twisted.ensureDeferred
async def test_tokens(make: Any, proxy: FaultProxy) -> None:
    """A session token is sent and signed; without keys there is no signature at all."""
    proxy.inject(Fault(status=404, body=b"<Error><Code>NoSuchKey</Code></Error>", times=100))
    await make(session_token="token").delete("a")
    await make(access_key_id="", secret_access_key="").delete("a")
    signed, anonymous = proxy.heads
    assert signed.get("x-amz-security-token") == "token"
    assert "x-amz-security-token" in signed_headers(signed)
    assert anonymous.get("authorization") is None


@pytest.mark.parametrize("option", [{"v2_auth": "true"}, {"region": "other-v2-signature"}])
@pytest_twisted.ensureDeferred
async def test_old_signatures(make: Any, proxy: FaultProxy, option: dict[str, str]) -> None:
    """Servers that know only version 2 are reached."""
    remote = make(**option)
    await know(remote, proxy)
    await put(remote, "with space/ü", LARGE)
    assert await get(remote, "with space/ü") == LARGE
    assert set(await everything(remote)) == {"first", "with space/ü"}
    assert {head.get("authorization").partition(" ")[0] for head in proxy.heads} == {"AWS"}


@pytest_twisted.ensureDeferred
async def test_lists_as_wished(make: Any, proxy: FaultProxy) -> None:
    """Version, length and encoding of pages."""
    remote = make(list_version="2", list_chunk="77", list_url_encode="true")
    await know(remote, proxy)
    await put(remote, "a+b c/ü", b"x")
    assert "a+b c/ü" in await everything(remote)
    assert all(part in proxy.seen[-1][1] for part in ("list-type=2", "max-keys=77", "encoding-type=url"))


# Answers.


@pytest.mark.parametrize("data", [b"small", LARGE], ids=["small", "large"])
@pytest_twisted.ensureDeferred
async def test_another_checksum_in_the_answer(make: Any, proxy: FaultProxy, data: bytes) -> None:
    """A server that says it has stored other bytes is not believed to have stored ours."""
    remote = make()
    await know(remote, proxy)
    other = ("x-amz-checksum-sha256", "n4bQgYhMfWWaL+qgxVrQFaO/TxsrC4Is0V1sFbDwCgg=")
    proxy.inject(Fault(on="PUT", status=200, headers=(other,)))
    with pytest.raises(StorageError):
        await put(remote, "a", data)


@pytest.mark.parametrize("asked", [True, False], ids=["by the server", "here"])
@pytest.mark.parametrize("wrapped", [False, True], ids=["bare", "with a cache"])
@pytest_twisted.ensureDeferred
async def test_who_compares_the_hash(
    make: Any, proxy: FaultProxy, workers: Workers, monkeypatch: pytest.MonkeyPatch, asked: bool, wrapped: bool
) -> None:
    """The server where it was found to do so, and then it is not done here; nothing that is wrong is stored anyhow."""
    remote = make()
    await know(remote, proxy)
    assert remote._server.known == Manners(conditional=True, takes_checksum=True, checks_checksum=True)
    if not asked:
        remote._server.known = Manners(conditional=True, takes_checksum=True, checks_checksum=False)
    hashed: list[object] = []
    update = verifying._VerifyingUpload._update
    monkeypatch.setattr(
        verifying._VerifyingUpload, "_update", lambda self, chunks: (hashed.append(chunks), update(self, chunks))
    )
    outer = VerifyingRemote(CacheRemote(remote, reactor) if wrapped else remote, workers)
    await put(outer, sha256(LARGE), LARGE)
    assert bool(hashed) != asked
    upload = await outer.begin(sha256(b"other"), len(LARGE), sha256(b"other"))
    await Source(upload, LARGE).start()
    with pytest.raises(Corrupt):
        await upload.commit()
    assert await get(outer, sha256(LARGE)) == LARGE
    with pytest.raises(NotFound):
        await remote.stat(sha256(b"other"))


@pytest_twisted.ensureDeferred
async def test_stored_and_gone(make: Any, proxy: FaultProxy) -> None:
    """An object that is not there after its upload is a fault, not a missing file."""
    remote = make()
    remote._server.known = Manners(conditional=True, takes_checksum=False, checks_checksum=False)
    await remote.make("")
    proxy.inject(Fault(on="PUT", status=200))
    with pytest.raises(StorageError):
        await put(remote, "a", b"small")


@pytest_twisted.ensureDeferred
async def test_a_clock_that_is_wrong(make: Any, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real refusal of a real server names the offset, for requests without a body in the answer too."""
    offset = 3 * 3600
    now = botocore.auth.get_current_datetime

    class Wrong:
        def seconds(self) -> float:
            return reactor.seconds() + offset

    remote = make()
    await know(remote, proxy)
    monkeypatch.setattr(
        botocore.auth, "get_current_datetime", lambda *args, **kw: now(*args, **kw) + datetime.timedelta(seconds=offset)
    )
    remote._api._clock = Wrong()
    for operation in (lambda: remote.stat("first"), lambda: remote.open("first"), lambda: put(remote, "a", b"x")):
        with pytest.raises(StorageError, match=r"this machine's clock is 10[78]\d\d s ahead of the server's"):
            await operation()
