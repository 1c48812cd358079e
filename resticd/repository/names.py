"""The strict grammar of request paths: the one place where a path becomes a value.

``/{segment}/…/`` names a repository, ``/{segment}/…/{type}/`` a directory of it, ``/{segment}/…/{type}/{name}`` a
blob and ``/{segment}/…/config`` its config (restic's ``doc/REST_backend.rst``). What is authorised and what becomes a
storage key is the value that ``parse`` returns; nothing behind it sees the path.
"""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import unquote_to_bytes

from attrs import frozen

from resticd.errors import InvalidName, NoSuchName

#: The types of restic's files that lie in a directory of their own.
TYPES = ("data", "keys", "locks", "snapshots", "index")
CONFIG = "config"

#: Longest segment in bytes: what ext4, XFS, Btrfs and ZFS take.
MAX_SEGMENT = 255
#: Longest path of a repository in bytes; leaves room below Linux's PATH_MAX and S3's 1024 for a root and a blob.
MAX_REPOSITORY = 800

_RESERVED = frozenset((*TYPES, CONFIG))
_HASH = re.compile(r"[0-9a-f]{64}\Z")
#: What nearly all requests are for: a blob in a repository whose path is remembered.
_COMMON = re.compile(rf"((?:/[\x21-\x7e]+)?)/({'|'.join(TYPES)})/([0-9a-f]{{64}})\Z")
_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f/\\]")


@frozen
class Repository:
    """The repository at a path of zero or more segments."""

    segments: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "".join(f"/{segment}" for segment in self.segments) or "/"


@frozen
class Directory:
    """All files of one type in a repository."""

    repository: Repository
    type: str

    def __str__(self) -> str:
        return f"{str(self.repository).rstrip('/')}/{self.type}/"


@frozen
class Blob:
    """One file of a repository. ``type`` is one of ``TYPES``, or ``config`` with an empty ``name``."""

    repository: Repository
    type: str
    name: str

    @property
    def is_config(self) -> bool:
        """Whether this is the repository's ``config``, the one file that is not named by its hash."""
        return self.type == CONFIG

    def __str__(self) -> str:
        prefix = str(self.repository).rstrip("/")
        return f"{prefix}/{CONFIG}" if self.is_config else f"{prefix}/{self.type}/{self.name}"


Target = Repository | Directory | Blob


# A restore asks for many parts of one pack in a row.
@lru_cache(maxsize=256)
def parse(path: str) -> Target:
    """The value that a request's path, still percent-encoded and without its query, names.

    Percent-encoding is undone once, segment by segment. Raises ``InvalidName`` for what can only be a mistake or an
    attack (empty or dot segments, encoded slashes, backslashes, control characters, bytes that are not UTF-8, too long)
    and ``NoSuchName`` for a harmless path on which no file of restic can lie.
    """
    common = _COMMON.match(path)
    if common is not None:
        repository = _repository(common[1])
        if repository is not None:
            return Blob(repository, common[2], common[3])
    return _parse(path)


@lru_cache(maxsize=1024)
def _repository(path: str) -> Repository | None:
    """The repository at ``path``, None where that names something else."""
    target = _parse(f"{path}/")
    return target if isinstance(target, Repository) else None


def _parse(path: str) -> Target:
    if not path.startswith("/") or not path.isascii():
        raise InvalidName("a path begins with a slash and is percent-encoded ASCII")
    segments = [_decode(segment) for segment in path[1:].split("/")]
    is_directory = segments[-1] == ""
    if is_directory:
        segments.pop()
    for segment in segments:
        _check(segment)
    target = _target(segments, is_directory)
    repository = target if isinstance(target, Repository) else target.repository
    if not _RESERVED.isdisjoint(repository.segments):
        raise NoSuchName("the name of a type cannot be part of a repository's path")
    if len("/".join(repository.segments).encode()) > MAX_REPOSITORY:
        raise InvalidName(f"the repository's path is longer than {MAX_REPOSITORY} bytes")
    return target


def _target(segments: list[str], is_directory: bool) -> Target:
    """Which kind of value the decoded segments name."""
    last = segments[-1] if segments else ""
    if last in TYPES:
        return Directory(Repository(tuple(segments[:-1])), last)
    if last == CONFIG:
        if is_directory:
            raise NoSuchName("config is a file")
        return Blob(Repository(tuple(segments[:-1])), CONFIG, "")
    if len(segments) > 1 and segments[-2] in TYPES:
        if is_directory or not _HASH.match(last):
            raise NoSuchName("a file's name is 64 lower-case hexadecimal digits")
        return Blob(Repository(tuple(segments[:-2])), segments[-2], last)
    return Repository(tuple(segments))


def _decode(segment: str) -> str:
    try:
        return unquote_to_bytes(segment).decode() if "%" in segment else segment
    except UnicodeDecodeError:
        raise InvalidName("a path is encoded in UTF-8") from None


def _check(segment: str) -> None:
    if segment in ("", ".", ".."):
        raise InvalidName("a path has no empty segments and no dot segments")
    if _FORBIDDEN.search(segment):
        raise InvalidName("a segment has no slashes, backslashes and control characters")
    if len(segment.encode(errors="surrogatepass")) > MAX_SEGMENT:
        raise InvalidName(f"a segment has at most {MAX_SEGMENT} bytes")
