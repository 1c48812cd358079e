"""Programs beside the daemon: their lines, their ends, and that none outlives its parent."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import pytest_twisted
from support.waiting import until
from twisted.internet import reactor

from resticd.errors import StorageError
from resticd.transport.children import LONGEST_LINE, Child
from resticd.transport.rundir import RunDirectory

HOW = pytest.mark.parametrize("how", ["bind", "watch"])


def child(script: str, line: Callable[[str], object] = print, how: str = "bind", **environ: str) -> Child:
    return Child(reactor, sys.executable, ["-c", script], environ, line, how=how)


def is_alive(pid: int) -> bool:
    """Whether the process runs; one that only waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@HOW
@pytest_twisted.ensureDeferred
async def test_lines_and_status(how: str) -> None:
    """Every line of both streams comes, the last one without its line feed too, and a long one is cut."""
    lines: list[str] = []
    script = (
        f"import sys; print('one\\ntwo', flush=True); sys.stderr.write('x' * {LONGEST_LINE * 3} + '\\nend'); exit(3)"
    )
    run = child(script, lines.append, how)
    await run.ended()
    assert run.status == "status 3"
    await until(lambda: len(lines) == 4)
    assert sorted(lines) == ["end", "one", "two", "x" * LONGEST_LINE]


@HOW
@pytest_twisted.ensureDeferred
async def test_environment_and_session(how: str) -> None:
    """The program has the environment that it was given, and a session of its own."""
    lines: list[str] = []
    await child("import os; print(os.environ['A'], os.getsid(0))", lines.append, how, A="b").ended()
    await until(lambda: lines)
    name, session = lines[0].split()
    assert name == "b"
    assert int(session) != os.getsid(0)


@HOW
@pytest_twisted.ensureDeferred
async def test_stop(how: str) -> None:
    """A program that ends when told so, and one that does not."""
    lines: list[str] = []
    polite = child("import time; print('up', flush=True); time.sleep(60)", lines.append, how)
    rude = child(
        "import signal, time; signal.signal(signal.SIGTERM, lambda *_: None); print('up', flush=True)\n"
        "while True: time.sleep(60)",
        lines.append,
        how,
    )
    await until(lambda: len(lines) == 2, 30)
    await polite.stop()
    await rude.stop()
    await rude.stop()
    assert polite.status
    assert rude.status
    assert not is_alive(polite.pid)
    assert not is_alive(rude.pid)


@pytest_twisted.ensureDeferred
async def test_a_program_that_is_not_there() -> None:
    lines: list[str] = []
    run = Child(reactor, "/nonexistent/program", [], {}, lines.append)
    await run.ended()
    assert run.status == "status 127"
    await until(lambda: lines)
    assert lines == ["cannot run /nonexistent/program: No such file or directory"]


@HOW
def test_no_child_outlives_its_parent(how: str, tmp_path: Path) -> None:
    """The parent is killed with SIGKILL, and the program is gone."""
    script = f"""
import sys
from twisted.internet import reactor
from resticd.transport.children import Child
work = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
def start():
    Child(reactor, sys.executable, ["-c", work], {{}}, lambda line: print(line, flush=True), how={how!r})
reactor.callWhenRunning(start)
reactor.run()
"""
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert is_alive(pid)
    parent.send_signal(signal.SIGKILL)
    parent.wait(30)
    parent.stdout.close()
    deadline = time.monotonic() + 30
    while is_alive(pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_nothing_starts_without_its_parent(tmp_path: Path) -> None:
    """A parent that is gone before the child is tied to it."""
    launcher = Path(sys.modules[Child.__module__].__file__).with_name("launch.py")
    mark = tmp_path / "mark"
    done = subprocess.run(
        [sys.executable, "-I", "-S", launcher, "bind", "1", sys.executable, "-c", f"open({str(mark)!r}, 'w')"],
        check=False,
    )
    assert done.returncode == 1
    assert not mark.exists()


class TestRunDirectory:
    """A place for sockets."""

    def test_nobody_else_gets_in(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
        directory = RunDirectory()
        assert directory.path.parent == tmp_path
        assert stat.S_IMODE(directory.path.stat().st_mode) == 0o700
        directory.remove()
        assert list(tmp_path.iterdir()) == []

    def test_leftovers_are_swept(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Those of processes that were killed, and none of a process that lives."""
        monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
        script = "from resticd.transport.rundir import RunDirectory; import os; RunDirectory(); os._exit(0)"
        subprocess.run([sys.executable, "-c", script], check=True)
        assert len(list(tmp_path.iterdir())) == 1
        first = RunDirectory()
        second = RunDirectory()
        assert {first.path, second.path} == set(tmp_path.iterdir())
        first.remove()
        second.remove()

    def test_no_place(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("resticd.transport.rundir._base", lambda: Path("/proc/self"))
        with pytest.raises(StorageError, match="directory for sockets in /proc/self"):
            RunDirectory()
