"""restic itself, as a user runs it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from support.peers import peer


class Restic:
    """A restic client with a cache and a password of its own.

    :param repository: as for ``restic -r``: ``rest:http://127.0.0.1:8000/a/``, or a directory.
    :param home: a directory for the cache, usually ``tmp_path``.
    :param program: ``restic-old`` (0.14) or ``restic-new`` (0.18).
    :param options: come before the command in every call, such as ``-o rest.connections=20``.
    """

    def __init__(
        self,
        repository: str | Path,
        home: Path,
        program: str = "restic-new",
        password: str = "secret",
        options: tuple[str, ...] = (),
    ) -> None:
        self.program = peer(program)
        self.options = options
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "RESTIC_REPOSITORY": str(repository),
            "RESTIC_PASSWORD": password,
            "RESTIC_CACHE_DIR": str(home / f"cache-{program}"),
            "RESTIC_PROGRESS_FPS": "0.1",
        }

    def __call__(
        self, *arguments: str | Path, status: int | None = 0, timeout: float = 300, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run ``restic ARGUMENTS`` and return what it wrote (``stdout``, ``stderr``).

        :param status: the exit status it must end with; None allows any.
        :param environment: variables on top, such as ``RESTIC_FROM_PASSWORD="…"``.
        """
        done = subprocess.run(
            [str(self.program), *self.options, *map(str, arguments)],
            check=False,
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
        )
        if status is not None and done.returncode != status:
            command = " ".join(map(str, arguments))
            raise AssertionError(f"restic {command}: status {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def json(self, *arguments: str | Path) -> Any:
        """Run ``restic --json ARGUMENTS`` and return the parsed answer, for commands that print one JSON value."""
        return json.loads(self("--json", *arguments).stdout)

    def snapshots(self) -> list[dict[str, Any]]:
        """The snapshots, oldest first."""
        return self.json("snapshots")
