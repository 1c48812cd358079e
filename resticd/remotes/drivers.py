"""The table of drivers: which options of rclone each one honours, ignores or refuses.

Every option that ``rclone config providers`` lists for a type is here, with rclone's default.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from resticd.remotes.registry import Driver, Loan, Registry, RemoteSpec, harmless, obscured, refused, secret, used

if TYPE_CHECKING:
    from resticd.interfaces import IRemote


def _make_local(spec: RemoteSpec, loan: Loan) -> IRemote:
    from resticd.remotes.local import LocalRemote

    return LocalRemote(Path(spec.path), loan.workers, loan.without)


def _make_memory(spec: RemoteSpec, loan: Loan) -> IRemote:
    from resticd.remotes.memory import MemoryRemote

    return MemoryRemote()


def _make_s3(spec: RemoteSpec, loan: Loan) -> IRemote:
    from resticd.remotes.s3 import make_s3

    return make_s3(
        spec.options,
        spec.path,
        loan.reactor,
        loan.workers,
        loan.client,
        limiter=loan.limiter,
        checkers=loan.checkers,
        claims=loan.claims_of(spec),
    )


def _make_webdav(spec: RemoteSpec, loan: Loan) -> IRemote:
    from resticd.remotes.webdav import make_webdav

    return make_webdav(
        spec.options,
        spec.path,
        loan.reactor,
        loan.client,
        limiter=loan.limiter,
        checkers=loan.checkers,
        claims=loan.claims_of(spec),
    )


def _make_bridge(spec: RemoteSpec, loan: Loan) -> IRemote:
    from resticd.remotes.bridge import BridgeRemote

    return BridgeRemote(spec, loan)


LOCAL = Driver(
    "local",
    _make_local,
    (
        # Links are followed, as with copy_links; "links" would store a text in place of each.
        harmless("copy_links", "false", prefixed=False),
        harmless("skip_links", "false", prefixed=False),
        refused("links", "false"),
        # These change names; restic's are plain ASCII, but those of repositories need not be.
        refused("encoding", "Slash,Dot"),
        refused("unicode_normalization", "false"),
        harmless("case_sensitive", "false"),
        harmless("case_insensitive", "false"),
        # How rclone lists, copies and checks files that others write.
        harmless("nounc", "false"),
        harmless("skip_specials", "false", prefixed=False),
        harmless("zero_size_links", "false"),
        harmless("no_check_updated", "false"),
        harmless("one_file_system", "false", prefixed=False),
        harmless("no_clone", "false"),
        harmless("no_preallocate", "false"),
        harmless("no_sparse", "false"),
        harmless("no_set_modtime", "false"),
        harmless("metadata_restore_special_bits", "false"),
        harmless("fatal_if_no_space", "false"),
        harmless("time_type", "mtime"),
        harmless("hashes"),
    ),
    remembers=False,
)

MEMORY = Driver("memory", _make_memory, (harmless("discard", "false"),), remembers=False, shareable=False)

S3_OPTIONS = (
    used("provider"),
    used("env_auth", "false"),
    secret("access_key_id"),
    secret("secret_access_key"),
    secret("session_token"),
    used("shared_credentials_file"),
    used("profile"),
    used("role_arn"),
    used("role_session_name"),
    used("role_session_duration"),
    used("role_external_id"),
    used("sts_endpoint"),
    used("v2_auth", "false"),
    used("region"),
    used("endpoint"),
    used("force_path_style", "true"),
    used("use_dual_stack", "false"),
    used("use_accelerate_endpoint", "false"),
    used("location_constraint"),
    used("no_check_bucket", "false"),
    used("acl"),
    used("bucket_acl"),
    used("requester_pays", "false"),
    used("storage_class"),
    used("server_side_encryption"),
    secret("sse_kms_key_id"),
    used("sse_customer_algorithm"),
    secret("sse_customer_key"),
    secret("sse_customer_key_base64"),
    secret("sse_customer_key_md5"),
    used("upload_cutoff", "200Mi"),
    used("chunk_size", "5Mi"),
    used("max_upload_parts", "10000"),
    used("upload_concurrency", "4"),
    used("leave_parts_on_error", "false"),
    used("list_chunk", "1000"),
    used("list_version", "0"),
    used("list_url_encode", "unset"),
    used("use_multipart_uploads", "unset"),
    used("use_unsigned_payload", "unset"),
    # Other names for the same objects, other objects under the same names, or other bytes in them.
    refused("encoding", "Slash,InvalidUtf8,Dot"),
    refused("directory_bucket", "false"),
    refused("directory_markers", "false"),
    refused("versions", "false"),
    refused("version_at", "off"),
    refused("version_deleted", "false"),
    refused("decompress", "false"),
    # Protection that users count on.
    refused("bucket_object_lock_enabled", "false"),
    refused("object_lock_mode"),
    refused("object_lock_retain_until_date"),
    refused("object_lock_legal_hold_status"),
    # Other ways to log in.
    refused("ibm_api_key"),
    refused("ibm_resource_instance_id"),
    refused("ibm_iam_endpoint"),
    # How rclone itself copies, checks and buffers, and what it works around.
    harmless("object_lock_set_after_upload", "false"),
    harmless("object_lock_supported", "unset"),
    harmless("bypass_governance_retention", "false"),
    harmless("copy_cutoff", "4.656Gi"),
    harmless("disable_checksum", "false"),
    harmless("use_multipart_etag", "unset"),
    harmless("use_presigned_request", "false"),
    harmless("use_data_integrity_protections", "unset"),
    harmless("use_arn_region", "false"),
    harmless("use_already_exists", "unset"),
    harmless("use_accept_encoding_gzip", "unset"),
    harmless("sign_accept_encoding", "unset"),
    harmless("use_x_id", "unset"),
    harmless("might_gzip", "unset"),
    harmless("list_versions_oldest_first", "unset"),
    harmless("no_head", "false"),
    harmless("no_head_object", "false"),
    harmless("no_system_metadata", "false"),
    harmless("download_url"),
    harmless("disable_http2", "false"),
    harmless("memory_pool_flush_time", "1m0s"),
    harmless("memory_pool_use_mmap", "false"),
    harmless("sdk_log_mode", "Off"),
)

S3 = Driver("s3", _make_s3, S3_OPTIONS, extra="s3", counts_requests=True)

WEBDAV_OPTIONS = (
    used("url"),
    used("vendor"),
    used("user"),
    obscured("pass"),
    secret("bearer_token"),
    used("bearer_token_command"),
    secret("headers"),
    used("unix_socket"),
    used("auth_redirect", "false"),
    # Nextcloud takes larger bodies in one piece, too, where its web server and PHP allow it.
    harmless("nextcloud_chunk_size", "10Mi"),
    refused("encoding"),
    harmless("pacer_min_sleep", "10ms"),
    harmless("owncloud_exclude_shares", "false"),
    harmless("owncloud_exclude_mounts", "false"),
)

WEBDAV = Driver("webdav", _make_webdav, WEBDAV_OPTIONS, extra="webdav", counts_requests=True)

BRIDGE = Driver("rclone", _make_bridge, None)

#: What is in use. A type that is not here goes to rclone itself, through ``bridge``.
REGISTRY = Registry((LOCAL, MEMORY, S3, WEBDAV), BRIDGE)
