"""Chains of system calls for files that the kernel makes one after the other, without a thread of ours: io_uring(7).

A thread that makes eight short calls takes the lock of the interpreter eight times, and each time from a reactor that
has work to do. Here the reactor puts the eight side by side into memory that it shares with the kernel, and hears when
the last is done.

Needs Linux 5.19, and that neither ``kernel.io_uring_disabled`` nor a filter of system calls forbids it. No memory
barriers are needed, since both sides pass through a system call (io_uring_enter, read of the eventfd) in between.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReadDescriptor
from zope.interface import implementer

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorFDSet
    from twisted.python.failure import Failure

# asm-generic/unistd.h (the numbers are the same on all architectures), linux/io_uring.h
_SYS_SETUP, _SYS_ENTER, _SYS_REGISTER = 425, 426, 427
_REGISTER_EVENTFD, _REGISTER_FILES_UPDATE, _REGISTER_FILES2 = 4, 6, 13
_REGISTER_SPARSE = 1
_OFF_SQES = 0x10000000
# What is done on the way into the kernel anyway is not worth interrupting the interpreter for.
_COOP_TASKRUN = 1 << 8
_FEAT_SINGLE_MMAP, _FEAT_CQE_SKIP = 1 << 0, 1 << 11
_FIXED_FILE, _LINK, _CQE_SKIP_SUCCESS = 1 << 0, 1 << 2, 1 << 6

FSYNC, OPENAT, CLOSE, WRITE, RENAMEAT = 3, 18, 19, 23, 35

AT_FDCWD = -100

#: Entries for calls; a power of two.
_ENTRIES = 512
#: Open files that a chain may have, and how many chains there may be at a time.
SLOTS = 2
CHAINS = 32


class Call(NamedTuple):
    """One system call, as io_uring_enter(2) describes it under the name of ``opcode``.

    A WRITE that fails or is short, and an OPENAT or CLOSE that fails, end their chain. Kernels differ in what a FSYNC
    or RENAMEAT that fails does to what follows, and in 6.18 they do nothing: see ``told``.
    """

    opcode: int
    fd: int = AT_FDCWD
    address: int = 0
    length: int = 0
    #: flags of the call
    options: int = 0
    #: an offset, or a second address
    other: int = 0
    #: What is opened or closed: one of the chain's files, counted from 0. None of them has a descriptor.
    file: int | None = None
    #: ``fd`` is one of the chain's files.
    of_chain: bool = False
    #: Its result is told even if that is a success.
    told: bool = False


#: What calls of a chain returned, by their number, counted from 0: those that are told, and one that ended it. Errors
#: are negative.
Results = dict[int, int]


class _Running(NamedTuple):
    """A chain."""

    calls: tuple[Call, ...]
    #: its first slot
    first: int
    #: what the addresses lie in
    keep: object
    results: Results
    done: Deferred[Results]


class _Offsets(ctypes.Structure):
    """``io_sqring_offsets`` and ``io_cqring_offsets``, whose fields are alike up to their meaning."""

    _fields_ = [
        *((name, ctypes.c_uint32) for name in ("head", "tail", "mask", "entries", "fifth", "sixth", "seventh", "pad")),
        ("address", ctypes.c_uint64),
    ]


class _Params(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_uint32) for name in ("sq_entries", "cq_entries", "flags", "cpu", "idle", "features", "wq")),
        ("pad", ctypes.c_uint32 * 3),
        ("sq", _Offsets),
        ("cq", _Offsets),
    ]


# io_uring_sqe, io_uring_cqe, io_uring_rsrc_register, io_uring_files_update
_SQE = struct.Struct("<BBHiQQIIQHHiQQ")
_CQE = struct.Struct("<QiI")
_RSRC = struct.Struct("<IIQQQ")
_UPDATE = struct.Struct("<IIQ")
#: "No file" for each of a chain's.
_NO_FILES = struct.pack(f"<{SLOTS}i", *[-1] * SLOTS)

# PyDLL keeps the lock of the interpreter: none of the calls waits.
_syscall = ctypes.PyDLL(None, use_errno=True).syscall
_syscall.restype = ctypes.c_long


def _call(number: int, *arguments: object) -> int:
    result: int = _syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def address_of(data: bytes) -> int:
    """Where the bytes lie, as long as ``data`` lives."""
    return ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value or 0


@implementer(IReadDescriptor)
class Ring:
    """A ring, for the reactor thread alone. Raises ``OSError`` where the kernel has or grants none."""

    def __init__(self, reactor: IReactorFDSet) -> None:
        self._reactor = reactor
        parameters = _Params(flags=_COOP_TASKRUN)
        self._fd = _call(_SYS_SETUP, ctypes.c_uint(_ENTRIES), ctypes.byref(parameters))
        self._event = -1
        try:
            if ~parameters.features & (_FEAT_SINGLE_MMAP | _FEAT_CQE_SKIP):
                raise OSError(errno.ENOSYS, "the kernel is too old")
            self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            _call(_SYS_REGISTER, self._fd, _REGISTER_EVENTFD, ctypes.byref(ctypes.c_int(self._event)), 1)
            files = _RSRC.pack(SLOTS * CHAINS, _REGISTER_SPARSE, 0, 0, 0)
            _call(_SYS_REGISTER, self._fd, _REGISTER_FILES2, files, len(files))
            self._map(parameters)
        except OSError:
            self._release()
            raise
        self._tail = 0
        #: first slots of chains that are not running
        self._free = list(range(0, SLOTS * CHAINS, SLOTS))
        self._count = 0
        #: by their number
        self._running: dict[int, _Running] = {}
        #: what the kernel did not take; it may look at their memory nevertheless
        self._lost: list[_Running] = []
        self._closing: Deferred[None] | None = None
        reactor.addReader(self)

    def _map(self, parameters: _Params) -> None:
        sq, cq = parameters.sq, parameters.cq
        self._sq_mask, self._cq_mask = parameters.sq_entries - 1, parameters.cq_entries - 1
        size = max(sq.seventh + parameters.sq_entries * 4, cq.sixth + parameters.cq_entries * _CQE.size)
        self._rings = mmap.mmap(self._fd, size, mmap.MAP_SHARED)
        self._sqes = mmap.mmap(self._fd, parameters.sq_entries * _SQE.size, mmap.MAP_SHARED, offset=_OFF_SQES)
        self._words = memoryview(self._rings).cast("I")
        for index in range(parameters.sq_entries):
            self._words[sq.seventh // 4 + index] = index  # the array of what is to be submitted
        self._sq_tail, self._cq_head, self._cq_tail = sq.tail // 4, cq.head // 4, cq.tail // 4
        self._cqes = cq.sixth

    @property
    def full(self) -> bool:
        """Whether no chain can be run now."""
        return not self._free or self._closing is not None

    def run(self, calls: Sequence[Call], keep: object) -> Deferred[Results]:
        """Make ``calls`` one after the other; the last one is told. The ring is not ``full``.

        Fires when no more of them is made, with all files of the chain closed. Nothing stops them. Raises ``OSError``
        where the kernel does not take them; the ring is of no use then.

        :param keep: what the addresses lie in.
        """
        first = self._free.pop()
        last = len(calls) - 1
        self._count += 1
        for index, call in enumerate(calls):
            flags = (0 if index == last else _LINK) | (0 if call.told else _CQE_SKIP_SUCCESS)
            fd = call.fd
            if call.of_chain:
                flags |= _FIXED_FILE
                fd += first
            # Slots are counted from 1 where 0 says that there is none.
            slot = 0 if call.file is None else first + call.file + 1
            about = (self._count << 8) | index
            at = (self._tail & self._sq_mask) * _SQE.size
            _SQE.pack_into(
                *(self._sqes, at, call.opcode, flags, 0, 0 if call.opcode == CLOSE else fd, call.other, call.address),
                *(call.length, call.options, about, 0, 0, slot, 0, 0),
            )
            self._tail = (self._tail + 1) & 0xFFFFFFFF
        running = _Running(tuple(calls), first, keep, {}, Deferred())
        try:
            self._submit(len(calls))
        except OSError:
            self._lost.append(running)
            raise
        self._running[self._count] = running
        return running.done

    def _submit(self, count: int) -> None:
        self._words[self._sq_tail] = self._tail
        while count:
            count -= _call(_SYS_ENTER, self._fd, count, 0, 0, None, 0)

    def doRead(self) -> None:
        """See ``IReadDescriptor``: some chains have ended."""
        os.eventfd_read(self._event)
        head, tail = self._words[self._cq_head], self._words[self._cq_tail]
        ended = []
        while head != tail:
            about, result, _ = _CQE.unpack_from(self._rings, self._cqes + (head & self._cq_mask) * _CQE.size)
            head = (head + 1) & 0xFFFFFFFF
            number, index = about >> 8, about & 0xFF
            running = self._running.get(number)
            if running is None:
                continue
            running.results[index] = result
            # What is not told has failed, and nothing of use is heard of those that are behind it.
            if index == len(running.calls) - 1 or not running.calls[index].told:
                ended.append(self._running.pop(number))
        self._words[self._cq_head] = head
        for running in ended:
            self._end(running)

    def _end(self, running: _Running) -> None:
        update = _UPDATE.pack(running.first, 0, address_of(_NO_FILES))
        _call(_SYS_REGISTER, self._fd, _REGISTER_FILES_UPDATE, update, SLOTS)
        self._free.append(running.first)
        running.done.callback(running.results)
        if self._closing is not None and not self._running:
            self._close()

    def close(self) -> Deferred[None]:
        """Run no more chains. Fires when those that run have ended."""
        closing = self._closing = Deferred()
        if not self._running:
            self._close()
        return closing

    def _close(self) -> None:
        self._reactor.removeReader(self)
        self._release()
        if self._closing is not None:
            self._closing.callback(None)

    def _release(self) -> None:
        if self._event >= 0:
            os.close(self._event)
        os.close(self._fd)

    def fileno(self) -> int:
        """See ``IFileDescriptor``."""
        return self._event

    def logPrefix(self) -> str:
        """See ``ILoggingContext``."""
        return "resticd"

    def connectionLost(self, reason: Failure) -> None:
        """See ``IReadDescriptor``; the reactor ends."""
