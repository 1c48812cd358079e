"""Looks at files, and small reads, that need no worker because the kernel has all of it in memory.

A worker's turn costs 60 µs and more, the look itself 8. ``openat2`` with ``RESOLVE_CACHED`` (Linux 5.12) fails where a
directory would have to be read from disk, ``preadv2`` with ``RWF_NOWAIT`` (4.14) where the bytes would. Whatever is not
there at once is None here, and a worker does it: nothing in this module may wait, and nothing in it is an error.
"""

from __future__ import annotations

import ctypes
import os
import stat
from typing import TYPE_CHECKING

from resticd.errors import RangeNotSatisfiable
from resticd.interfaces import Piece, Stat

if TYPE_CHECKING:
    from pathlib import Path

    from resticd.remotes.local_open import OpenFiles
    from resticd.streams import Span

# linux/openat2.h, asm-generic/unistd.h (the number is the same on all architectures)
_SYS_OPENAT2 = 437
_RESOLVE_CACHED = 0x20
_AT_FDCWD = -100

#: A file of its lower directory keeps its name there when it is removed (ovl_getattr in fs/overlayfs/inode.c).
_OVERLAYFS = 0x794C7630
#: File systems whose files are described and closed without asking anybody (linux/magic.h): ext2 to ext4, XFS, Btrfs,
#: ZFS, F2FS, bcachefs, tmpfs, overlayfs. What is on others (NFS, FUSE) a worker looks at.
_LOCAL = {0xEF53, 0x58465342, 0x9123683E, 0x2FC12FC1, 0xF2F52010, 0xCA451A4E, 0x01021994, _OVERLAYFS}


class _OpenHow(ctypes.Structure):
    _fields_ = [("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64)]


# PyDLL keeps the lock of the interpreter: the call is too short to let another thread in.
_syscall = ctypes.PyDLL(None).syscall
_syscall.restype = ctypes.c_long
_syscall.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_size_t]
_HOW_SIZE = ctypes.sizeof(_OpenHow)
_LOOK = _OpenHow(os.O_PATH | os.O_CLOEXEC, 0, _RESOLVE_CACHED)
_READ = _OpenHow(os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK, 0, _RESOLVE_CACHED)
_LOOK_AT = ctypes.addressof(_LOOK)
_READ_AT = ctypes.addressof(_READ)

_libc = ctypes.CDLL(None)


class PromptReader:
    """Files below ``root``.

    :param files: leaves files open for a moment; None closes them at once.
    """

    def __init__(self, root: Path, files: OpenFiles | None = None) -> None:
        self._root = os.fsencode(root) + b"/"
        self._files = files
        #: what file system is on a device (linux/magic.h), by the device
        self._devices: dict[int, int] = {}
        #: Else nothing is told promptly: a look at the root may wait for a server already.
        self._root_is_local = False
        #: Filling it anew is faster than making one each time.
        self._buffer = memoryview(b"")

    def look_at_root(self) -> None:
        """Learn what file system the root is on. May block; for workers."""
        fd = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._root_is_local = self.learn(fd, os.fstat(fd).st_dev)
        finally:
            os.close(fd)

    def learn(self, fd: int, device: int) -> bool:
        """Whether the file system of ``device``, on which a file is open, is a local one. May block; for workers.

        Files on a device that was not learned are not told of promptly.
        """
        return self._file_system_of(fd, device) in _LOCAL

    def file_system(self, fd: int) -> int:
        """What file system an open file is on (linux/magic.h). May block; for workers."""
        return self._file_system_of(fd, os.fstat(fd).st_dev)

    def _file_system_of(self, fd: int, device: int) -> int:
        if device not in self._devices:
            self._devices[device] = _file_system(fd)
        return self._devices[device]

    def stat(self, key: str) -> Stat | None:
        """Size and time of a file, where they can be had at once."""
        found = self._find(_LOOK_AT, key)
        if found is None:
            return None
        fd, about = found
        self._done(_LOOK_AT, key, fd, about)
        return Stat(about.st_size, about.st_mtime)

    def look(self, key: str) -> os.stat_result | None:
        """What is at ``key``, the root itself where that is empty, where it can be had at once. Nothing stays open."""
        opened = self._open(_LOOK_AT, key)
        if opened is None:
            return None
        fd, about = opened
        os.close(fd)
        return about

    def close(self) -> None:
        """Close what was left open."""
        if self._files is not None:
            self._files.close()

    def _find(self, how: int, key: str) -> tuple[int, os.stat_result] | None:
        """A regular file, open, and what it is, where that can be had at once; ``_done`` takes it back."""
        found = None if self._files is None else self._files.find((how, key))
        if found is not None:
            return found
        opened = self._open(how, key)
        if opened is None or stat.S_ISREG(opened[1].st_mode):
            return opened
        os.close(opened[0])
        return None

    def _open(self, how: int, key: str) -> tuple[int, os.stat_result] | None:
        """What is at ``key``, open, and what it is, where that can be had at once."""
        if not self._root_is_local:
            return None
        fd = _syscall(_SYS_OPENAT2, _AT_FDCWD, self._root + key.encode(), how, _HOW_SIZE)
        if fd < 0:
            return None
        about = os.fstat(fd)
        if self._devices.get(about.st_dev) in _LOCAL:
            return fd, about
        os.close(fd)
        return None

    def _done(self, how: int, key: str, fd: int, about: os.stat_result) -> None:
        if self._files is None or self._devices.get(about.st_dev) == _OVERLAYFS:
            os.close(fd)
        else:
            self._files.keep((how, key), fd, about)

    def read_open(self, fd: int, offset: int, size: int) -> bytes:
        """What is in memory of an open file from ``offset`` on, ``size`` bytes at most; it may be nothing."""
        if size > len(self._buffer):
            self._buffer = memoryview(bytearray(size))
        piece = self._buffer[:size]
        try:
            return bytes(piece[: os.preadv(fd, [piece], offset, os.RWF_NOWAIT)])
        except OSError:
            return b""

    def read(self, key: str, span: Span | None, most: int) -> Piece | None:
        """A file, or the part of it that ``span`` names, where it is not longer than ``most`` bytes and in memory."""
        found = self._find(_READ_AT, key)
        if found is None:
            return None
        fd, about = found
        try:
            size = about.st_size
            offset, length = (0, size) if span is None else span.resolve(size)
            if length > most:
                return None
            if length > len(self._buffer):
                self._buffer = memoryview(bytearray(length))
            piece = self._buffer[:length]
            if length and os.preadv(fd, [piece], offset, os.RWF_NOWAIT) != length:
                return None
            return Piece(size, offset, piece)
        except (OSError, RangeNotSatisfiable):
            return None
        finally:
            self._done(_READ_AT, key, fd, about)


def _file_system(fd: int) -> int:
    """``f_type`` of fstatfs(2), 0 where that fails."""
    buffer = ctypes.create_string_buffer(256)
    if _libc.fstatfs(fd, buffer) != 0:
        return 0
    return ctypes.c_long.from_buffer(buffer).value & 0xFFFFFFFF
