"""A program at a terminal, typed into as a person does."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

#: What terminals are told besides text: colours, the cursor, titles.
_CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]|\x1b\][^\x07]*\x07|\x07|\r")


class Terminal:
    """A context manager; leaving it kills the program.

    :ivar seen: all that it has shown, without codes.
    """

    def __init__(self, command: Sequence[str | Path], environment: Mapping[str, str], cwd: Path) -> None:
        self._ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            [str(word) for word in command],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=cwd,
            env=dict(environment),
            start_new_session=True,
        )
        os.close(theirs)
        self._raw = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)

    @property
    def seen(self) -> str:
        return _CODES.sub("", self._raw.decode(errors="replace"))

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def wait_for(self, pattern: str, seconds: float = 60) -> re.Match[str]:
        """Read until ``pattern`` is in what was shown since the last call that found one, and forget up to there."""
        deadline = time.monotonic() + seconds
        while not (match := re.search(pattern, self.seen)):
            left = deadline - time.monotonic()
            readable, _, _ = select.select([self._ours], [], [], max(0, left))
            if not readable:
                raise AssertionError(f"{pattern!r} is not in {self.seen!r}")
            try:
                data = os.read(self._ours, 65536)
            except OSError as error:
                raise AssertionError(f"it ended: {self.seen!r}") from error
            self._raw += data
        self._raw = self.seen[match.end() :].encode()
        return match
