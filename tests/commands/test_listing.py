"""``resticd lsd`` and ``resticd ls`` over remotes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support.s3_fixtures import section
from support.s3_servers import rclone_s3

RESTICD = Path(sys.executable).with_name("resticd")


def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [RESTICD, *map(str, arguments)],
        env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", **environment},
        capture_output=True,
        check=False,
        text=True,
        timeout=120,
    )


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Two repositories, an empty directory, and a file beside them."""
    store = tmp_path / "store"
    for path, size in (
        ("laptop/config", 155),
        ("laptop/data/00/aa", 70_000),
        ("with space/ünï/config", 1),
        ("file", 0),
    ):
        (store / path).parent.mkdir(parents=True, exist_ok=True)
        (store / path).write_bytes(bytes(size))
    (store / "empty").mkdir()
    (store / "laptop/.resticd-1234.tmp").write_bytes(b"unfinished")
    return store


def test_a_directory(store: Path) -> None:
    done = run("lsd", store)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(done.stdout.splitlines()) == ["empty", "laptop", "with space"]
    done = run("ls", store)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(done.stdout.splitlines()) == [
        "        0 file",
        "        1 with space/ünï/config",
        "      155 laptop/config",
        "    70000 laptop/data/00/aa",
    ]


def test_a_remote_of_the_remotes_file(store: Path, tmp_path: Path) -> None:
    (tmp_path / "rclone.conf").write_text(
        f"[mine]\ntype = alias\nremote = {store}\n[both]\ntype = combine\nupstreams = one=mine:laptop two=mine:empty\n"
    )
    assert run("lsd", "mine:laptop", RCLONE_CONFIG=str(tmp_path / "rclone.conf")).stdout == "data\n"
    # Flags may stand anywhere, as in rclone.
    done = run("--config", tmp_path / "rclone.conf", "lsd", "both:", "--fast-list")
    assert (done.stdout.splitlines(), done.stderr) == (["one", "two"], "")
    done = run("ls", "--config", tmp_path / "rclone.conf", "both:")
    assert sorted(done.stdout.split()) == ["155", "70000", "one/config", "one/data/00/aa"]


def test_a_directory_that_is_missing_is_not_made(tmp_path: Path) -> None:
    """A server would make it."""
    for command in ("ls", "lsd"):
        done = run(command, tmp_path / "missing")
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == f"resticd: {tmp_path}/missing: there is no such directory\n"
    assert not (tmp_path / "missing").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("ls",), "say what to serve"),
        (("ls", "unknown:path"), 'remote "unknown:"'),
        (("ls", "--unknown", "/tmp"), "unknown flag: --unknown"),
        (("ls", "/tmp", "/var"), "/tmp /var"),
    ],
)
def test_mistakes_are_one_line(arguments: tuple[str, ...], message: str) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert message in done.stderr
    assert done.stderr.startswith("resticd: ")
    assert done.stderr.count("\n") == 1


def test_a_remote_that_cannot_be_reached(tmp_path: Path) -> None:
    """One line, and nothing of the secrets."""
    place = ":s3,provider=Minio,endpoint='http://127.0.0.1:1',access_key_id=me,secret_access_key=hunter2hunter2:b"
    done = run("ls", "--low-level-retries", "1", "--contimeout", "5s", place)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("resticd: ")
    assert "hunter2" not in done.stderr
    assert "Traceback" not in done.stderr


def test_a_bucket(tmp_path: Path) -> None:
    """Its directories are asked for as such, and so is all that is in it."""
    with rclone_s3(tmp_path) as server:
        for path in ("laptop/config", "laptop/data/00/aa", "with space/config", "file"):
            (tmp_path / "rclone-s3/bucket" / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "rclone-s3/bucket" / path).write_bytes(bytes(155))
        variables = section(server.options("Rclone"))
        done = run("lsd", "store:bucket", **variables)
        assert (sorted(done.stdout.splitlines()), done.stderr) == (["laptop", "with space"], "")
        done = run("ls", "store:bucket/laptop", **variables)
        assert (sorted(done.stdout.splitlines()), done.stderr) == (["      155 config", "      155 data/00/aa"], "")


def test_a_reader_that_has_enough(store: Path) -> None:
    """``resticd ls | head -1`` says nothing on standard error."""
    for number in range(3000):
        (store / "laptop" / f"{number:0200d}").write_bytes(b"")
    done = subprocess.run(
        ["bash", "-c", f"'{RESTICD}' ls '{store}' | head -1"], capture_output=True, check=True, text=True, timeout=120
    )
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""
