"""The bucket itself."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from resticd.remotes.s3_errors import BucketTaken
from resticd.remotes.s3_xml import create_bucket

if TYPE_CHECKING:
    from resticd.remotes.s3_api import S3Api


async def make_bucket(api: S3Api) -> None:
    """Make the bucket where there is none, unless ``no_check_bucket`` is set.

    One that may not be looked at (403) is there. What a service says of a bucket that exists already
    is read as rclone reads it (``makeBucket`` in its ``backend/s3/s3.go``).
    """
    options = api.options
    if options.no_check_bucket:
        return
    response = await api.call("HEAD", allowed=(403, 404))
    if response.status != 404:
        return
    body = create_bucket(options.location_constraint)
    headers = (("x-amz-acl", options.bucket_acl),) if options.bucket_acl else ()
    try:
        created = await api.call("PUT", headers=headers, data=body, sha256=hashlib.sha256(body).hexdigest())
    except BucketTaken as error:
        if not error.ours and options.provider.exists_means_foreign:
            raise
    else:
        created.discard()
