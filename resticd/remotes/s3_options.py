"""rclone's options of an S3 remote, and where they lead."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping
from typing import Self
from urllib.parse import quote, urlsplit

from attrs import field, frozen
from twisted.logger import Logger

from resticd.errors import ConfigurationError
from resticd.remotes.option_values import OptionValues
from resticd.remotes.s3_providers import OTHER, Provider, provider_named

_MIB = 1024 * 1024
#: The longest body of one PUT.
LARGEST_PUT = 5 * 1024 * _MIB
_HOST_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{1,61})[a-z0-9]\Z")
_log = Logger(namespace="resticd.remotes.s3")


@frozen
class CustomerKey:
    """A key that encrypts objects on the server and is sent with every request (SSE-C)."""

    algorithm: str
    #: in base64
    key: str = field(repr=False)
    #: of the key, in base64
    md5: str = field(repr=False)


@frozen(kw_only=True)
class S3Options:
    """What an S3 remote is told. Names and meanings are rclone's, see its ``docs/content/s3.md``.

    :ivar endpoint: a URL without a path at its end, or empty for Amazon's.
    :ivar upload_cutoff: larger bodies go in parts, in bytes.
    """

    provider: Provider
    access_key_id: str = field(default="", repr=False)
    secret_access_key: str = field(default="", repr=False)
    session_token: str = field(default="", repr=False)
    env_auth: bool = False
    profile: str = ""
    shared_credentials_file: str = ""
    role_arn: str = ""
    role_session_name: str = ""
    role_session_duration: float | None = None
    role_external_id: str = field(default="", repr=False)
    sts_endpoint: str = ""
    v2_auth: bool = False
    region: str = "us-east-1"
    endpoint: str = ""
    path_style: bool = False
    dual_stack: bool = False
    accelerate: bool = False
    location_constraint: str = ""
    no_check_bucket: bool = False
    acl: str = ""
    bucket_acl: str = ""
    requester_pays: bool = False
    storage_class: str = ""
    server_side_encryption: str = ""
    sse_kms_key_id: str = field(default="", repr=False)
    customer_key: CustomerKey | None = None
    upload_cutoff: int = 200 * _MIB
    chunk_size: int = 5 * _MIB
    max_parts: int = 10000
    upload_concurrency: int = 4
    leave_parts_on_error: bool = False
    list_chunk: int = 1000
    list_version: int = 2
    list_url_encode: bool = True
    unsigned_payload: bool = False

    @classmethod
    def parse(cls, options: Mapping[str, str]) -> Self:
        """Raises ``ConfigurationError`` where a value is wrong, or two do not fit together."""
        values = OptionValues("s3", options)
        provider = _provider(values)
        region = values.text("region")
        return cls(
            provider=provider,
            access_key_id=values.text("access_key_id"),
            secret_access_key=values.text("secret_access_key"),
            session_token=values.text("session_token"),
            env_auth=values.switch("env_auth"),
            profile=values.text("profile"),
            shared_credentials_file=values.text("shared_credentials_file"),
            role_arn=values.text("role_arn"),
            role_session_name=values.text("role_session_name"),
            role_session_duration=values.duration("role_session_duration"),
            role_external_id=values.text("role_external_id"),
            sts_endpoint=values.text("sts_endpoint"),
            v2_auth=values.switch("v2_auth") or region == "other-v2-signature",
            region=region or "us-east-1",
            endpoint=_endpoint(values, provider),
            path_style=_path_style(values, provider),
            dual_stack=values.switch("use_dual_stack"),
            accelerate=values.switch("use_accelerate_endpoint"),
            location_constraint=values.text("location_constraint"),
            no_check_bucket=values.switch("no_check_bucket"),
            acl=values.text("acl"),
            bucket_acl=values.text("bucket_acl") or values.text("acl"),
            requester_pays=values.switch("requester_pays"),
            storage_class=values.text("storage_class"),
            server_side_encryption=values.text("server_side_encryption"),
            sse_kms_key_id=values.text("sse_kms_key_id"),
            customer_key=_customer_key(values),
            upload_cutoff=_upload_cutoff(values, provider),
            chunk_size=_chunk_size(values, provider),
            max_parts=min(max(values.number("max_upload_parts", 10000), 1), provider.max_parts),
            upload_concurrency=max(values.number("upload_concurrency", 4), 1),
            leave_parts_on_error=values.switch("leave_parts_on_error"),
            list_chunk=max(values.number("list_chunk", 1000), 1),
            list_version=_list_version(values, provider),
            list_url_encode=values.tristate("list_url_encode", provider.list_url_encode),
            unsigned_payload=values.tristate("use_unsigned_payload", default=False),
        )

    def base_url(self, bucket: str, region: str) -> str:
        """Where the bucket lies: keys follow after a slash.

        :param region: the bucket's, which may turn out to be another than the configured one.
        """
        if self.endpoint:
            scheme, _, rest = self.endpoint.partition("://")
        else:
            scheme, rest = "https", self._amazon_host(region)
        # Certificates for *.host do not cover names with dots.
        virtual = not self.path_style and _HOST_LABEL.match(bucket) is not None
        return f"{scheme}://{bucket}.{rest}" if virtual else f"{scheme}://{rest}/{quote(bucket)}"

    def _amazon_host(self, region: str) -> str:
        dual = ".dualstack" if self.dual_stack else ""
        if self.accelerate:
            return f"s3-accelerate{dual}.amazonaws.com"
        suffix = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
        return f"s3{dual}.{region}.{suffix}"


def _provider(values: OptionValues) -> Provider:
    name = values.text("provider")
    provider = provider_named(name)
    if provider is None:
        _log.warn('s3: the provider "{name}" is not known, it is taken for "Other"', name=name)
        return OTHER
    return provider


def _endpoint(values: OptionValues, provider: Provider) -> str:
    text = values.text("endpoint").rstrip("/")
    if not text:
        if not provider.aws_by_default:
            raise values.error("endpoint", f"is needed for the provider {values.text('provider')}")
        return ""
    url = text if "://" in text else f"https://{text}"
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        valid = False
    if not valid or parts.query or parts.fragment or parts.username is not None or not url.isascii():
        raise values.error("endpoint", "is not a URL such as https://s3.example.com:9000")
    return url


def _path_style(values: OptionValues, provider: Provider) -> bool:
    """As rclone decides: a provider that wants the bucket in the host's name has the last word."""
    return (
        provider.path_style and values.switch("force_path_style", True) and not values.switch("use_accelerate_endpoint")
    )


def _customer_key(values: OptionValues) -> CustomerKey | None:
    plain, encoded = values.text("sse_customer_key"), values.text("sse_customer_key_base64")
    algorithm = values.text("sse_customer_algorithm")
    if not plain and not encoded:
        if algorithm:
            raise values.error("sse_customer_algorithm", "needs sse_customer_key or sse_customer_key_base64")
        return None
    if plain and encoded:
        raise ConfigurationError("s3: sse_customer_key and sse_customer_key_base64 exclude each other")
    if not algorithm:
        raise values.error("sse_customer_algorithm", "is needed for a customer's key")
    try:
        key = base64.b64decode(encoded, validate=True) if encoded else plain.encode()
    except binascii.Error:
        raise values.error("sse_customer_key_base64", "is not base64") from None
    md5 = base64.b64encode(hashlib.md5(key, usedforsecurity=False).digest()).decode()
    return CustomerKey(algorithm, base64.b64encode(key).decode(), values.text("sse_customer_key_md5") or md5)


def _upload_cutoff(values: OptionValues, provider: Provider) -> int:
    cutoff = values.size("upload_cutoff", 200 * _MIB)
    if cutoff is None or not provider.multipart or not values.tristate("use_multipart_uploads", provider.multipart):
        return LARGEST_PUT
    if cutoff > LARGEST_PUT:
        raise values.error("upload_cutoff", "is more than 5 GiB")
    return cutoff


def _chunk_size(values: OptionValues, provider: Provider) -> int:
    size = values.size("chunk_size", 5 * _MIB)
    if size is None or size < 5 * _MIB:
        raise values.error("chunk_size", "is less than 5 MiB")
    return max(size, provider.min_part)


def _list_version(values: OptionValues, provider: Provider) -> int:
    version = values.number("list_version", 0) or provider.list_version
    if version not in (1, 2):
        raise values.error("list_version", "is neither 1 nor 2")
    return version
