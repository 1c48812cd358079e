"""rclone's options of an S3 remote."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path

import pytest
from support.rclone_cli import rclone

from resticd.errors import ConfigurationError
from resticd.remotes.drivers import S3_OPTIONS
from resticd.remotes.registry import Effect
from resticd.remotes.s3_options import LARGEST_PUT, S3Options
from resticd.remotes.s3_providers import provider_named

MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("options", "bucket", "region", "url"),
    [
        ({"provider": "AWS"}, "b-1", "eu-north-1", "https://b-1.s3.eu-north-1.amazonaws.com"),
        ({"provider": "AWS"}, "b", "cn-north-1", "https://s3.cn-north-1.amazonaws.com.cn/b"),
        ({"provider": "AWS"}, "b.c.d", "eu-north-1", "https://s3.eu-north-1.amazonaws.com/b.c.d"),
        ({"provider": "AWS"}, "Upper", "eu-north-1", "https://s3.eu-north-1.amazonaws.com/Upper"),
        ({"provider": "AWS", "use_dual_stack": "true"}, "bucket", "x", "https://bucket.s3.dualstack.x.amazonaws.com"),
        (
            {"provider": "AWS", "use_accelerate_endpoint": "true"},
            "bucket",
            "x",
            "https://bucket.s3-accelerate.amazonaws.com",
        ),
        ({"provider": "Minio", "endpoint": "http://[::1]:9000/"}, "bucket", "", "http://[::1]:9000/bucket"),
        # as rclone: no option brings a bucket into the host's name where the provider wants it in the path
        (
            {"provider": "Wasabi", "endpoint": "s3.wasabisys.com", "force_path_style": "true"},
            "bucket",
            "",
            "https://bucket.s3.wasabisys.com",
        ),
        (
            {"provider": "Minio", "endpoint": "http://minio", "force_path_style": "false"},
            "bucket",
            "",
            "http://bucket.minio",
        ),
        (
            {"provider": "Cloudflare", "endpoint": "https://x.r2.example/"},
            "bucket",
            "auto",
            "https://x.r2.example/bucket",
        ),
        ({"endpoint": "https://gateway/s3"}, "bucket", "", "https://gateway/s3/bucket"),
        ({}, "bucket", "us-east-1", "https://s3.us-east-1.amazonaws.com/bucket"),
    ],
)
def test_where_the_bucket_lies(options: dict[str, str], bucket: str, region: str, url: str) -> None:
    """In the path or before the host's name, as provider, option and the bucket's name allow."""
    assert S3Options.parse(options).base_url(bucket, region) == url


def test_every_provider_of_rclone_is_known() -> None:
    """None that rclone offers is taken for "Other" by accident."""
    backends = json.loads(rclone("config", "providers").stdout)
    (s3,) = (backend for backend in backends if backend["Name"] == "s3")
    (option,) = (option for option in s3["Options"] if option["Name"] == "provider")
    names = [example["Value"] for example in option["Examples"]]
    assert len(names) > 40
    assert [name for name in names if provider_named(name) is None] == []


def test_the_documentation_has_every_option() -> None:
    """Those that are honoured, and those that are refused."""
    page = (Path(__file__).parents[2] / "docs" / "remotes.md").read_text()
    section = page[page.index("### Options") : page.index("### Networks")]
    assert set(re.findall("`([a-z_0-9]+)`", section)) == {
        option.name for option in S3_OPTIONS if option.effect is not Effect.HARMLESS
    }


def test_an_unknown_provider_is_taken_for_other() -> None:
    """As rclone does."""
    assert S3Options.parse({"provider": "Nobody", "endpoint": "http://x"}).provider is provider_named("Other")
    assert provider_named("Nobody") is None


@pytest.mark.parametrize(
    ("options", "cutoff", "part"),
    [
        ({}, 200 * MIB, 5 * MIB),
        ({"upload_cutoff": "50M", "chunk_size": "16M"}, 50 * MIB, 16 * MIB),
        ({"upload_cutoff": "0"}, 0, 5 * MIB),
        ({"use_multipart_uploads": "false"}, LARGEST_PUT, 5 * MIB),
        ({"use_multipart_uploads": "unset", "upload_cutoff": "1M"}, MIB, 5 * MIB),
        ({"provider": "Fastly", "endpoint": "http://x"}, LARGEST_PUT, 5 * MIB),
        ({"provider": "Storj", "endpoint": "http://x"}, 200 * MIB, 64 * MIB),
    ],
)
def test_parts(options: dict[str, str], cutoff: int, part: int) -> None:
    """What goes in parts, and how large they are."""
    parsed = S3Options.parse(options)
    assert (parsed.upload_cutoff, parsed.chunk_size) == (cutoff, part)


def test_customer_keys() -> None:
    """A key comes as text or in base64; its MD5 is found out."""
    key = bytes(range(32))
    md5 = base64.b64encode(hashlib.md5(key).digest()).decode()
    encoded = base64.b64encode(key).decode()
    parsed = S3Options.parse({"sse_customer_algorithm": "AES256", "sse_customer_key_base64": encoded}).customer_key
    assert parsed is not None
    assert (parsed.algorithm, parsed.key, parsed.md5) == ("AES256", encoded, md5)
    plain = S3Options.parse({"sse_customer_algorithm": "AES256", "sse_customer_key": "k" * 32}).customer_key
    assert plain is not None
    assert base64.b64decode(plain.key) == b"k" * 32


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"provider": "Minio"}, "endpoint is needed for the provider Minio"),
        ({"endpoint": "ftp://x"}, "endpoint is not a URL"),
        ({"endpoint": "http://user:secret@x"}, "endpoint is not a URL"),
        ({"endpoint": "http://x?secret=1"}, "endpoint is not a URL"),
        ({"endpoint": "http://x:port"}, "endpoint is not a URL"),
        ({"env_auth": "perhaps"}, "env_auth is neither true nor false"),
        ({"chunk_size": "4M"}, "chunk_size is less than 5 MiB"),
        ({"chunk_size": "secret"}, "chunk_size is not a size"),
        ({"upload_cutoff": "6G"}, "upload_cutoff is more than 5 GiB"),
        ({"list_version": "3"}, "list_version is neither 1 nor 2"),
        ({"list_chunk": "-1"}, "list_chunk is not a number"),
        ({"role_session_duration": "soon"}, "role_session_duration is not a duration"),
        ({"sse_customer_algorithm": "AES256"}, "needs sse_customer_key"),
        ({"sse_customer_key": "secret"}, "sse_customer_algorithm is needed"),
        ({"sse_customer_key_base64": "secret!", "sse_customer_algorithm": "AES256"}, "is not base64"),
        (
            {"sse_customer_key": "secret", "sse_customer_key_base64": "c2VjcmV0", "sse_customer_algorithm": "AES256"},
            "exclude each other",
        ),
    ],
)
def test_what_cannot_be_meant(options: dict[str, str], problem: str) -> None:
    """The message names the option and does not show the value."""
    with pytest.raises(ConfigurationError, match=problem) as caught:
        S3Options.parse(options)
    assert "secret" not in str(caught.value).replace("secret_access_key", "")


def test_secrets_are_not_shown() -> None:
    """No key is in the repr."""
    options = S3Options.parse(
        {
            "access_key_id": "hunter2",
            "secret_access_key": "hunter2",
            "session_token": "hunter2",
            "role_external_id": "hunter2",
            "sse_kms_key_id": "hunter2",
            "sse_customer_key": "hunter2",
            "sse_customer_algorithm": "AES256",
        }
    )
    assert "hunter2" not in repr(options)
    assert "aHVudGVyM" not in repr(options)
