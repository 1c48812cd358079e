"""Where the files of a repository lie on a remote: restic's default layout (``internal/backend/layout`` in restic).

``data/2159dd48…`` is stored as ``data/21/2159dd48…``, everything else flat, so the same repository opens with restic's
own local, sftp, s3 and rclone backends.
"""

from __future__ import annotations

import re

from resticd.repository.names import CONFIG, Blob, Directory, Repository

_DATA = re.compile(r"([0-9a-f]{2})/(\1[0-9a-f]{62})\Z")
_DATA_DIRECTORY = re.compile(r"[0-9a-f]{2}/")
_FLAT = re.compile(r"[0-9a-f]{64}\Z")


def repository_prefix(repository: Repository) -> str:
    """The prefix of all keys of a repository: empty, or with a slash at its end."""
    segments = repository.segments
    return "/".join(segments) + "/" if segments else ""


def directory_prefix(directory: Directory) -> str:
    """The prefix of the keys of one type."""
    return f"{repository_prefix(directory.repository)}{directory.type}/"


def blob_key(blob: Blob) -> str:
    """The key of one file."""
    prefix = repository_prefix(blob.repository)
    if blob.is_config:
        return prefix + CONFIG
    if blob.type == "data":
        return f"{prefix}data/{blob.name[:2]}/{blob.name}"
    return f"{prefix}{blob.type}/{blob.name}"


def all_blobs(directory: Directory, prefix: str, names: list[str]) -> bool:
    """Whether ``blob_name`` takes all of ``prefix`` with each of ``names`` behind it; a few times faster.

    :param prefix: of a directory at or below that of ``directory``.
    """
    rest = prefix[len(directory_prefix(directory)) :]
    fits = _DATA_DIRECTORY.fullmatch(rest) if directory.type == "data" else not rest
    if not fits or not set(map(len, names)) <= {64}:
        return False
    text = "".join(names)
    if rest and (text[::64] != rest[0] * len(names) or text[1::64] != rest[1] * len(names)):
        return False
    try:
        # Spaces and upper case do not come back as they were.
        return bytes.fromhex(text).hex() == text
    except ValueError:
        return False


def blob_name(directory: Directory, key: str) -> str | None:
    """The restic name of a listed key of ``directory``, or None where the key is not restic's and must not be shown."""
    return blob_names(directory, [key])[0]


def blob_names(directory: Directory, keys: list[str]) -> list[str | None]:
    """``blob_name`` of each of many keys."""
    start = len(directory_prefix(directory))
    if directory.type == "data":
        return [match[2] if (match := _DATA.match(key, start)) else None for key in keys]
    return [key[start:] if _FLAT.match(key, start) else None for key in keys]
