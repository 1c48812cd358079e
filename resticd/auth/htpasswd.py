"""Apache's password files, read again whenever they change."""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from attrs import field, frozen
from twisted.logger import Logger

from resticd.auth.hashes import complaint, cost
from resticd.auth.names import is_user, presentable
from resticd.errors import ConfigurationError

#: In bytes; some hundred thousand users.
LARGEST_FILE = 16 * 1024 * 1024
#: Seconds that a file must have been left alone. htpasswd(1) empties the file and writes it again.
_SETTLE = 0.05
#: How often to wait for that before the file counts as one that is being written.
_PATIENCE = 20
#: Seconds after a change in which another one may go unnoticed: file systems count time in steps of up to 2 s.
_COARSEST_TIME = 3.0
#: Requests that come within this time, in seconds, of one for which the file was looked at count as simultaneous: a
#: look costs a tenth of a small request.
_LOOK_EVERY = 0.001

_Fingerprint = tuple[int, int, int, int, int]


@frozen
class Contents:
    """What a password file held at one moment."""

    #: the stored hash for each user
    hashes: Mapping[str, str] = field(repr=False)
    #: a hash that costs as much to check as most do, for users who do not exist; None where the file has no users
    decoy: str | None = field(repr=False)
    #: for the log
    warnings: tuple[str, ...]
    #: tells one text from another
    digest: bytes = field(repr=False)
    #: tells from outside whether the file is still the one that was read; None where that cannot be told yet
    fingerprint: _Fingerprint | None


class HtpasswdFile:
    """The users of an Apache password file.

    What cannot be read or does not parse never replaces what was read before. So neither a file that is being
    written, nor an editor that removes it for a moment, nor a mount that is gone refuses clients: restic takes a 401
    for final and would give up a backup. Nothing is opened by that, and a start without the file fails.

    :param path: the file. It is read before this returns; raises ``ConfigurationError`` where that is impossible.
    :param now: the time of day, which is compared with the file's.
    :param sleep: waits; called in the worker that reads.
    """

    _log = Logger()

    def __init__(
        self,
        path: str | Path,
        now: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._monotonic = monotonic
        self._looked = float("-inf")
        self.path = Path(path)
        self._now = now
        self._sleep = sleep
        self._complaint: str | None = None
        self.contents = Contents({}, None, (), b"", None)
        self.contents = self.read()
        self._announce()

    def stale(self) -> bool:
        """Whether the file has to be read again. Looks at the file without opening it."""
        known = self.contents.fingerprint
        if known is None:
            return True
        now = self._monotonic()
        if now - self._looked < _LOOK_EVERY:
            return False
        try:
            stale = _fingerprint(self.path.stat()) != known
        except OSError:
            return True
        if not stale:
            self._looked = now
        return stale

    def read(self) -> Contents:
        """Read the file as it is once nobody writes it. Blocks, changes nothing here. Raises ``ConfigurationError``."""
        for _ in range(_PATIENCE):
            try:
                data, before, after = self._read_once()
            except OSError as error:
                raise ConfigurationError(f"--htpasswd: {self.path}: {error.strerror}") from None
            # The time of the last change of the inode cannot be set by anybody, so that ``cp -p`` is seen as well.
            age = self._now() - after.st_ctime
            if 0 <= age < _SETTLE or _fingerprint(before) != _fingerprint(after):
                self._sleep(_SETTLE)
                continue
            fingerprint = None if 0 <= age < _COARSEST_TIME else _fingerprint(after)
            return self._parse(data, fingerprint)
        raise ConfigurationError(f"--htpasswd: {self.path}: changes while it is read")

    def adopt(self, contents: Contents) -> None:
        """Use what ``read`` gave from now on."""
        changed = contents.digest != self.contents.digest
        self.contents = contents
        if changed or self._complaint is not None:
            self._complaint = None
            self._announce()

    def keep(self, error: ConfigurationError) -> None:
        """Go on with what was read before, and write ``error`` to the log unless the last one was the same."""
        if str(error) != self._complaint:
            self._complaint = str(error)
            self._log.error("{error}; the users that were read before stay", error=self._complaint)

    def _announce(self) -> None:
        for warning in self.contents.warnings:
            self._log.warn("{warning}", warning=warning)
        self._log.info("{path}: {count} users", path=str(self.path), count=len(self.contents.hashes))

    def _read_once(self) -> tuple[bytes, os.stat_result, os.stat_result]:
        # Without O_NONBLOCK a pipe would hold the worker until somebody writes to it.
        descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor, no path
            before = os.fstat(descriptor)
            if not stat.S_ISREG(before.st_mode):
                raise ConfigurationError(f"--htpasswd: {self.path}: not a regular file")
            data = file.read(LARGEST_FILE + 1)
            if len(data) > LARGEST_FILE:
                raise ConfigurationError(f"--htpasswd: {self.path}: larger than {LARGEST_FILE} bytes")
        # By its name, not by the descriptor: somebody may have put another file in its place meanwhile.
        return data, before, self.path.stat()

    def _parse(self, data: bytes, fingerprint: _Fingerprint | None) -> Contents:
        digest = hashlib.sha256(data).digest()
        last = self.contents
        if last.digest == digest:
            return Contents(last.hashes, last.decoy, last.warnings, digest, fingerprint)
        hashes, warnings = parse_htpasswd(data, f"--htpasswd: {self.path}")
        return Contents(hashes, _decoy(hashes), tuple(warnings), digest, fingerprint)


def parse_htpasswd(data: bytes, name: str) -> tuple[dict[str, str], list[str]]:
    """Read a password file: the hash for each user, and what is worth a warning.

    As in Apache (``mod_authn_file.c``) white space around a line does not count, nor what follows another colon, and
    the first of several lines for one user wins. Unlike in Apache a line that cannot be used is an error, and so is a
    password that is stored in plain text or as weak as that.

    :param name: stands before ``:line:`` in messages; the errors are ``ConfigurationError``.
    """
    hashes: dict[str, str] = {}
    warnings = []
    for number, line in _lines(data):
        place = f"{name}:{number}"
        try:
            user, colon, rest = line.decode().partition(":")
        except UnicodeDecodeError:
            raise ConfigurationError(f"{place}: not UTF-8") from None
        if not colon:
            raise ConfigurationError(f"{place}: no colon after the user's name")
        if not is_user(user):
            raise ConfigurationError(f"{place}: '{presentable(user)}' cannot be a user's name")
        stored = rest.partition(":")[0]
        if problem := complaint(stored):
            raise ConfigurationError(f"{place}: {problem}")
        if user in hashes:
            warnings.append(f"{place}: {presentable(user)} is there already; the first line counts")
        else:
            hashes[user] = stored
    if not hashes:
        warnings.append(f"{name}: no users: nobody can log in")
    return hashes, warnings


def _lines(data: bytes) -> Iterator[tuple[int, bytes]]:
    for number, line in enumerate(data.split(b"\n"), 1):
        stripped = line.strip()
        if stripped and not stripped.startswith(b"#"):
            yield number, stripped


def _decoy(hashes: Mapping[str, str]) -> str | None:
    if not hashes:
        return None
    ((commonest, _),) = Counter(map(cost, hashes.values())).most_common(1)
    return next(stored for stored in hashes.values() if cost(stored) == commonest)


def _fingerprint(status: os.stat_result) -> _Fingerprint:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
