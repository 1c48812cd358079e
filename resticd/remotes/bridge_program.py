"""Which rclone is run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from resticd.errors import ConfigurationError

#: Before it, sockets and calls that the bridge needs are missing or differ.
MINIMUM = (1, 65)
INSTALL = "https://rclone.org/install/ says how to install it"

_VERSION = re.compile(r"rclone v(\d+)\.(\d+)\S*")
#: Seconds that a program may take to say what it is.
_PATIENCE = 60.0


def find_rclone(program: str, type: str, environ: Mapping[str, str]) -> str:
    """The path of a program that is rclone, new enough, and knows remotes of that type.

    A name is looked for in all of PATH: restic can be made to use resticd under the name of rclone, and what is found
    first may be this program itself. Blocks while it is asked. Raises ``ConfigurationError`` that says what to do.

    :param program: the value of ``--rclone``: a name or a path.
    """
    problem = ""
    for path in _candidates(program, environ):
        found = _problem(path, environ)
        if not found:
            _check_type(path, type, environ)
            return path
        problem = problem or found
    if not problem:
        problem = f'no program "{program}" was found'
    raise ConfigurationError(
        f"remotes of type {type} are served through rclone: {problem}; {INSTALL}, --rclone names another one"
    )


def _candidates(program: str, environ: Mapping[str, str]) -> Iterator[str]:
    if os.sep in program:
        yield str(Path(program).absolute())
        return
    for directory in environ.get("PATH", os.defpath).split(os.pathsep):
        found = shutil.which(program, path=directory) if directory else None
        if found:
            yield found


def _problem(path: str, environ: Mapping[str, str]) -> str:
    """Why the program cannot be used; empty where it can."""
    try:
        said = _ask(path, environ, "version").stdout
    except OSError as error:
        return f"{path} cannot be run: {error.strerror}"
    except subprocess.TimeoutExpired:
        return f"{path} does not say its version"
    match = _VERSION.match(said)
    if match is None:
        return f"{path} is not rclone"
    if tuple(map(int, match.groups())) < MINIMUM:
        return f"{path} is {match[0]}, and {'.'.join(map(str, MINIMUM))} or newer is needed"
    return ""


def _check_type(path: str, type: str, environ: Mapping[str, str]) -> None:
    try:
        known = _ask(path, environ, "help", "backend", type).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return  # the first use will tell
    if not known:
        raise ConfigurationError(f'neither resticd nor {path} has remotes of the type "{type}"')


def _ask(path: str, environ: Mapping[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    # Neither a remotes file nor variables have a say in what a program is.
    few = {key: value for key, value in environ.items() if not key.startswith(("RCLONE_", "RESTIC", "LISTEN_"))}
    return subprocess.run(
        [path, *words],
        env={**few, "RCLONE_CONFIG": ""},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        encoding="utf-8",
        errors="replace",
        timeout=_PATIENCE,
        check=False,
    )
