"""Runs a program that ends with its parent: ``python launch.py HOW PARENT PROGRAM [ARGUMENT…]``.

A script of its own, which ``children`` starts with an interpreter that imports nothing else: between fork and exec of
a process with threads no such work can be done safely. The program gets a session of its own, so that a terminal's
interrupt reaches it only through its parent. There are two ways to tie it:

``bind``
    The kernel kills it when the thread that started it ends (``PR_SET_PDEATHSIG``, prctl(2)). It outlives exec, so that
    nothing of this script stays. Where there is no such thing, ``watch`` is what happens.
``watch``
    This script stays and kills it when standard input, a pipe that the parent holds open, is closed.

PARENT is the parent's process id: if the parent is gone before all this is arranged, nothing is started.
"""

import ctypes
import os
import select
import signal
import sys

_PR_SET_PDEATHSIG = 1
#: Seconds between two looks whether the program has ended.
_PERIOD = 0.2


def main(how: str, parent: str, command: list[str]) -> None:
    """Become the program, or its guard; does not return."""
    os.setsid()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, which programs would inherit
    if how == "bind" and _bind():
        if os.getppid() != int(parent):
            os._exit(1)
        _run(command)
    _guard(command)


def _bind() -> bool:
    try:
        done: int = ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    except (AttributeError, OSError):
        return False
    return done == 0


def _run(command: list[str]) -> None:
    try:
        os.execv(command[0], command)  # noqa: S606 - no shell is wanted
    except OSError as error:
        os.write(2, f"cannot run {command[0]}: {error.strerror}\n".encode())
        os._exit(127)


def _guard(command: list[str]) -> None:
    child = os.fork()
    if child == 0:
        _run(command)
    signal.signal(signal.SIGTERM, lambda number, _: os.kill(child, number))
    ended = 0
    while not ended:
        # Nothing is ever written to the pipe: it is readable once it is closed.
        if select.select([0], [], [], _PERIOD)[0]:
            os.kill(child, signal.SIGKILL)
            ended, status = os.waitpid(child, 0)
        else:
            ended, status = os.waitpid(child, os.WNOHANG)
    code = os.waitstatus_to_exitcode(status)
    os._exit(code if code >= 0 else 128 - code)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
