"""The bytes that are moved: prepared once, kept between runs, in the page cache when the measuring starts."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import random
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from attrs import field, frozen

MIB = 1 << 20


@frozen
class Corpus:
    """A directory with two repositories to read from, ``bulk`` and ``many``, and a ``source`` for restic to back up."""

    place: Path
    blobs: int = 48
    blob_size: int = 16 * MIB
    objects: int = 100_000
    #: number and size of the files in ``source``; 1 GiB together
    source_files: tuple[tuple[int, int], ...] = field(
        default=((16, 32 * MIB), (512, MIB // 2), (4096, MIB // 16)), kw_only=True
    )

    def bulk(self) -> dict[str, Path]:
        """The blobs of the repository ``bulk``: each name is the SHA-256 of its file."""
        return {path.name: path for path in self._once("bulk", self._make_bulk).glob("data/*/*")}

    def large(self) -> Path:
        """The one blob of the repository ``large``, 128 MiB as restic's largest packs."""
        return next(self._once("large", self._make_large).glob("data/*/*"))

    def many(self) -> int:
        """How many objects the repository ``many`` holds."""
        self._once("many", lambda draft: self._make_many(draft, self.objects))
        return self.objects

    def million(self) -> int:
        """How many objects the repository ``million`` holds: ten times as many."""
        self._once("million", lambda draft: self._make_many(draft, 10 * self.objects))
        return 10 * self.objects

    def source(self) -> Path:
        """A directory tree of random bytes, which neither compression nor deduplication makes smaller."""
        return self._once("source", self._make_source)

    def small(self, count: int, size: int, seed: int) -> list[tuple[str, bytes]]:
        """Bodies with their SHA-256; other ones for another seed."""
        source = random.Random(seed)
        bodies = [source.randbytes(size) for _ in range(count)]
        return [(hashlib.sha256(body).hexdigest(), body) for body in bodies]

    def _once(self, name: str, make: Callable[[Path], None]) -> Path:
        done = self.place / name
        if not done.exists():
            draft = self.place / f"{name}.part"
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir(parents=True)
            make(draft)
            os.sync()
            draft.rename(done)
        return done

    def _make_bulk(self, draft: Path) -> None:
        block = bytearray(random.Random(0).randbytes(self.blob_size))
        for number in range(self.blobs):
            block[:8] = number.to_bytes(8, "big")
            _store(draft, hashlib.sha256(block).hexdigest(), block)

    def _make_large(self, draft: Path) -> None:
        body = random.Random(1).randbytes(128 * MIB)
        _store(draft, hashlib.sha256(body).hexdigest(), body)

    def _make_many(self, draft: Path, count: int) -> None:
        for number in range(count):
            _store(draft, hashlib.sha256(number.to_bytes(8, "big")).hexdigest(), b"x")

    def _make_source(self, draft: Path) -> None:
        for count, size in self.source_files:
            for number in range(count):
                path = draft / f"{size}-bytes" / f"{number % 64}" / f"{number}"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(os.urandom(size))


def _store(repository: Path, name: str, body: bytes | bytearray) -> None:
    path = repository / "data" / name[:2] / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(body)


@contextlib.contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Make ``directory`` and wait until no other run measures there: two at once measure each other."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("bench: waiting until another run has ended", file=sys.stderr)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def warm(directory: Path) -> None:
    """Read everything below ``directory``, so that no server measured first pays for the disk."""
    sink = bytearray(MIB)
    for folder, _, names in os.walk(directory):
        for name in names:
            with Path(folder, name).open("rb", buffering=0) as file:
                while file.readinto(sink):
                    pass
