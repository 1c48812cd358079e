"""How the services that speak S3 differ, by the names that rclone gives them (``backend/s3/provider`` in rclone)."""

from __future__ import annotations

from attrs import frozen

_MIB = 1024 * 1024


@frozen(kw_only=True)
class Provider:
    """What is to be known of one service before it is asked anything.

    :ivar path_style: the bucket stands in the path (``endpoint/bucket/key``), not before the host's name.
    :ivar list_version: 2 for ListObjectsV2, 1 for its forerunner.
    :ivar list_url_encode: keys in lists may be asked for percent-encoded, so that every key fits into XML.
    :ivar exists_means_foreign: BucketAlreadyExists is said of other people's buckets only.
    :ivar multipart: uploads in parts work.
    :ivar max_parts: of one upload.
    :ivar min_part: the smallest part in bytes.
    :ivar aws_by_default: without an endpoint Amazon's is meant.
    """

    path_style: bool = False
    list_version: int = 2
    list_url_encode: bool = True
    exists_means_foreign: bool = True
    multipart: bool = True
    max_parts: int = 10000
    min_part: int = 5 * _MIB
    aws_by_default: bool = False


#: What rclone takes for a service that it does not know.
OTHER = Provider(
    path_style=True, list_version=1, list_url_encode=False, exists_means_foreign=False, aws_by_default=True
)
_PLAIN = Provider()
_PATH = Provider(path_style=True)
_SHY = Provider(exists_means_foreign=False)
_RAW = Provider(list_url_encode=False)
_RAW_SHY = Provider(list_url_encode=False, exists_means_foreign=False)
_PATH_SHY = Provider(path_style=True, exists_means_foreign=False)
_PATH_RAW_SHY = Provider(path_style=True, list_url_encode=False, exists_means_foreign=False)
_OLD = Provider(path_style=True, list_version=1, list_url_encode=False, exists_means_foreign=False)
_OLD_HOST = Provider(list_version=1, list_url_encode=False, exists_means_foreign=False)

_PROVIDERS = {
    "AWS": Provider(aws_by_default=True),
    "Alibaba": _PLAIN,
    "ArvanCloud": _OLD,
    "BizflyCloud": _PATH_RAW_SHY,
    "Ceph": _OLD,
    "ChinaMobile": _OLD,
    "Cloudflare": _PATH,
    "Cubbit": _PLAIN,
    "DigitalOcean": _RAW_SHY,
    "Dreamhost": _RAW_SHY,
    "Exaba": _PATH,
    "Fastly": Provider(path_style=True, exists_means_foreign=False, multipart=False),
    "FileLu": Provider(path_style=True, list_url_encode=False),
    "FlashBlade": _PATH,
    "GCS": _PLAIN,
    "HCP": _PATH,
    "Hetzner": _SHY,
    "HuaweiOBS": _OLD_HOST,
    "IBMCOS": _OLD,
    "IDrive": _PATH_SHY,
    "IONOS": _PATH_RAW_SHY,
    "ImpossibleCloud": _PLAIN,
    "Intercolo": _PLAIN,
    "Leviia": _SHY,
    "Liara": _PATH_RAW_SHY,
    "Linode": _PLAIN,
    "LyveCloud": _SHY,
    "Magalu": _OLD,
    "Mega": _PATH_SHY,
    "Minio": _PATH,
    "Netease": _OLD_HOST,
    "OVHcloud": _PLAIN,
    "Other": OTHER,
    "Outscale": _PATH,
    "Petabox": _SHY,
    "Qiniu": _PATH_RAW_SHY,
    "Rabata": _PLAIN,
    "RackCorp": _SHY,
    "Rclone": _PATH_SHY,
    "Scaleway": Provider(max_parts=1000),
    "Scality": _PATH,
    "SeaweedFS": _OLD,
    "Selectel": _RAW,
    "Servercore": _RAW,
    "SpectraLogic": _PATH,
    "Storj": Provider(exists_means_foreign=False, min_part=64 * _MIB),
    "Synology": _SHY,
    "TencentCOS": Provider(list_version=1, exists_means_foreign=False),
    "Wasabi": _PLAIN,
    "Zadara": _PATH,
    "Zata": _SHY,
    "ZeroServices": _PATH_RAW_SHY,
    "US3": Provider(list_version=1, exists_means_foreign=False),
}


def provider_named(name: str) -> Provider | None:
    """The provider of that name, None for a name that rclone does not know either; no name is ``Other``."""
    return _PROVIDERS.get(name or "Other")
