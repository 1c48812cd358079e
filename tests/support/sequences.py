"""What people do with restic, as sequences that run over any server."""

from __future__ import annotations

import filecmp
import os
import random
import subprocess
from pathlib import Path

from support.restic import Restic


def make_files(folder: Path, seed: int = 0, count: int = 40, big: int = 6 * 1024 * 1024) -> Path:
    """A folder with files of many sizes, an empty one, a deep one, one of ``big`` bytes and names that need escapes."""
    chance = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        path = folder / f"dir {number % 7}" / f"näme {number}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(chance.randbytes(chance.choice([0, 1, 100, 5000, 70_000])))
    (folder / "big").write_bytes(chance.randbytes(big))
    deep = folder / "a/b/c/d"
    deep.mkdir(parents=True, exist_ok=True)
    (deep / "file").write_bytes(b"deep")
    return folder


def assert_same(left: Path, right: Path) -> None:
    """Both folders hold the same names and bytes."""
    comparison = filecmp.dircmp(left, right, ignore=[])
    assert not comparison.left_only
    assert not comparison.right_only
    _, different, broken = filecmp.cmpfiles(left, right, comparison.common_files, shallow=False)
    assert not different
    assert not broken
    for name in comparison.common_dirs:
        assert_same(left / name, right / name)


def restore_and_compare(restic: Restic, files: Path, target: Path, snapshot: str = "latest") -> None:
    """Restore a snapshot of ``files`` and compare every byte."""
    restic("restore", snapshot, "--target", target)
    assert_same(files, target / str(files).lstrip("/"))


def whole_life(restic: Restic, files: Path, scratch: Path) -> None:
    """From ``init`` to ``forget --prune``: every command of restic that needs no mount.

    ``files`` is changed on the way.
    """
    restic("init")
    assert "already" in restic("init", status=1).stderr
    restic("backup", files)
    restic("backup", files)
    (files / "added").write_bytes(os.urandom(100_000))
    (files / "big").write_bytes(os.urandom(3 * 1024 * 1024))
    restic("backup", "--tag", "second", files)
    assert len(restic.snapshots()) == 3
    assert "/added" in restic("ls", "latest").stdout
    assert restic("find", "added").stdout
    snapshots = restic.snapshots()
    assert restic("diff", snapshots[0]["id"], snapshots[-1]["id"]).stdout
    assert restic("stats").stdout
    assert (files / "added").read_bytes().hex() == _dump(restic, files / "added")
    restore_and_compare(restic, files, scratch / "restored")
    restic("check", "--read-data")
    restic("tag", "--add", "kept", "latest")
    assert "kept" in restic.snapshots()[-1]["tags"]
    password = scratch / "password"
    password.write_text("another")
    restic("key", "add", "--new-password-file", password)
    assert len(restic.json("key", "list")) == 2
    restic("snapshots", RESTIC_PASSWORD="another")
    restic("list", "locks")
    restic("unlock", "--remove-all")
    restic("forget", "--keep-last", "1", "--prune")
    assert len(restic.snapshots()) == 1
    restic(*(["rebuild-index"] if restic.program.name == "restic-old" else ["repair", "index"]))
    restic("check", "--read-data")
    restore_and_compare(restic, files, scratch / "restored-again")


def core_life(restic: Restic, files: Path, scratch: Path) -> None:
    """What every storage must carry: ``init``, backups, ``restore``, ``check --read-data``, ``forget --prune``.

    Each call of restic works half a second on its key, so that ``whole_life`` is for the protocol and not for every
    storage behind it. ``files`` is changed on the way.
    """
    restic("init")
    restic("backup", files)
    (files / "added").write_bytes(os.urandom(100_000))
    (files / "big").write_bytes(os.urandom(3 * 1024 * 1024))
    restic("backup", files)
    assert len(restic.snapshots()) == 2
    restic("check", "--read-data")
    restic("forget", "--keep-last", "1", "--prune")
    assert len(restic.snapshots()) == 1
    restic("check", "--read-data")
    restore_and_compare(restic, files, scratch / "restored")


def _dump(restic: Restic, path: Path) -> str:
    """The bytes of a backed-up file, as hexadecimal digits, since the client's output is read as text."""
    done = subprocess.run(
        [str(restic.program), *restic.options, "dump", "latest", str(path)],
        env=restic.environment,
        capture_output=True,
        check=True,
        timeout=120,
    )
    return done.stdout.hex()
