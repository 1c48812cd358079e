"""What a running daemon writes: logs, reports and the audit log, with rotation, signals and load."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.asking import ask, blob
from support.daemons import Server
from support.ports import free_port
from support.restic import Restic
from support.waiting import wait_until

ROOT = Path(__file__).parents[2]
Start = Callable[..., Server]
ME = ("me", "pass-word")
LOGIN = ("--user", ME[0], "--pass", ME[1])


def objects(path: Path) -> list[dict]:
    """The JSON objects in a file, one a line."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_access_lines_and_refused_logins(start_resticd: Start, tmp_path: Path) -> None:
    """Apache's combined format and the duration; the address is there too where nobody was believed."""
    log = tmp_path / "log"
    server = start_resticd(":memory:", "-v", "--log-file", str(log), *LOGIN)
    body = os.urandom(3000)
    headers = {"User-Agent": 'restic "new"', "Referer": "http://x/"}
    assert ask(server.port, "POST", blob(body), body, login=ME, headers=headers).status == 200
    assert ask(server.port, "GET", blob(body), login=ME).status == 200
    assert ask(server.port, "GET", "/config?token=t", login=("eve", "x")).status == 401
    wait_until(lambda: log.read_text().count('HTTP/1.1"') == 3)
    lines = log.read_text().splitlines()
    start = r"\d{4}/\d\d/\d\d \d\d:\d\d:\d\d INFO  : 127\.0\.0\.1 - %s \[\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\] "
    end = r" \d+\.\d{3}"
    expected = [
        start % "me" + rf'"POST {blob(body)} HTTP/1\.1" 200 - "http://x/" "restic \\"new\\""' + end,
        start % "me" + rf'"GET {blob(body)} HTTP/1\.1" 200 3000 "-" "-"' + end,
        start % "-" + r'"GET /config\?token=\*\*\* HTTP/1\.1" 401 \d+ "-" "-"' + end,
    ]
    access = [line for line in lines if "HTTP/1.1" in line]
    for pattern, line in zip(expected, access, strict=True):
        assert re.fullmatch(pattern, line), line
    assert any(
        line.endswith('NOTICE: login refused from 127.0.0.1 for "eve": wrong user or password') for line in lines
    )


def test_the_same_in_json(start_resticd: Start, tmp_path: Path) -> None:
    """An object a line, with the numbers of a request as fields."""
    log = tmp_path / "log"
    server = start_resticd(":memory:", "-v", "--use-json-log", "--log-file", str(log), *LOGIN)
    body = os.urandom(3000)
    assert ask(server.port, "POST", blob(body), body, login=ME).status == 200
    ask(server.port, "GET", "/config", login=("eve", "x"))
    entries = wait_until(lambda: found if len(found := objects(log)) >= 4 else None)
    (post,) = [entry for entry in entries if entry.get("method") == "POST"]
    assert (post["level"], post["user"], post["status"], post["received"]) == ("info", "me", 200, 3000)
    assert post["duration"] > 0
    assert post["complete"] is True
    assert post["msg"].startswith("127.0.0.1 - me [")
    (refused,) = [entry for entry in entries if entry["source"] == "resticd.login"]
    assert (refused["level"], refused["msg"]) == (
        "notice",
        'login refused from 127.0.0.1 for "eve": wrong user or password',
    )


def test_levels(start_resticd: Start, tmp_path: Path) -> None:
    """By default what matters; -q only errors."""
    written = {}
    for flag in ("--log-level=NOTICE", "-q", "-vv"):
        log = tmp_path / f"log{flag}"
        server = start_resticd(":memory:", flag, "--log-file", str(log), *LOGIN)
        assert ask(server.port, "GET", "/config", login=("eve", "x")).status == 401
        assert server.stop() in (0, -15)
        written[flag] = set(re.findall(r"^\S+ \S+ (\w+) *: ", log.read_text(), re.MULTILINE))
    assert written == {"--log-level=NOTICE": {"NOTICE"}, "-q": set(), "-vv": {"DEBUG", "INFO", "NOTICE"}}


@pytest.mark.parametrize("hup", [True, False])
def test_rotation(start_resticd: Start, tmp_path: Path, hup: bool) -> None:
    """Log and audit log go on in new files after SIGHUP, and within a second without it; nothing is lost."""
    log, audit = tmp_path / "log", tmp_path / "audit"
    server = start_resticd(":memory:", "-v", "--log-file", str(log), "--audit-log", str(audit))
    count = 0

    def store() -> None:
        nonlocal count
        count += 1
        body = os.urandom(100)
        assert ask(server.port, "POST", blob(body), body).status == 200

    store()
    for path in (log, audit):
        path.rename(path.with_name(path.name + ".1"))
    store()
    if hup:
        os.kill(server.pid, signal.SIGHUP)
        wait_until(lambda: log.exists() and audit.exists())
    else:
        wait_until(lambda: (store(), log.exists() and audit.exists())[1])
    store()
    assert server.stop() in (0, -15)
    for path, pattern in ((log, "POST /data/"), (audit, '"store"')):
        texts = [path.with_name(path.name + ".1").read_text(), path.read_text()]
        assert all(pattern in text for text in texts)
        assert sum(text.count(pattern) for text in texts) == count
    assert objects(audit)[-1]["outcome"] == "done"


def test_logrotate(start_resticd: Start, tmp_path: Path) -> None:
    """The real one, with the sample in conf/: new files without a signal, and the old ones whole."""
    place = tmp_path / "log"
    place.mkdir()
    log, audit = place / "resticd.log", place / "audit.jsonl"
    sample = (ROOT / "conf/logrotate").read_text().replace("/var/log/resticd", str(place))
    sample, count = re.subn(r"^ *su .*\n|(?<=create 0640) .*", "", sample, flags=re.MULTILINE)  # no such user here
    assert count == 4
    rules = tmp_path / "rules"
    rules.write_text(sample)
    rules.chmod(0o644)
    server = start_resticd(":memory:", "-v", "--log-file", str(log), "--audit-log", str(audit))
    names = []

    def store() -> bool:
        body = os.urandom(100)
        names.append(blob(body).rpartition("/")[2])
        assert ask(server.port, "POST", blob(body), body).status == 200
        return bool(log.read_text() and audit.read_text())

    store()
    logrotate = shutil.which("logrotate", path=f"{os.environ['PATH']}:/usr/sbin")
    assert logrotate is not None
    subprocess.run([logrotate, "--force", "--state", tmp_path / "state", rules], check=True)
    assert log.read_text() == audit.read_text() == ""
    wait_until(store)
    assert server.stop() in (0, -15)
    for path, pattern in ((log, "POST /data/{} "), (audit, '"name": "{}"')):
        old, new = path.with_name(f"{path.name}.1").read_text(), path.read_text()
        assert pattern.format(names[0]) in old
        assert pattern.format(names[-1]) in new
        assert all((old + new).count(pattern.format(name)) == 1 for name in names)


def test_a_report_while_a_backup_runs(start_resticd: Start, tmp_path: Path) -> None:
    """With name, percentage, speed and counts: now on SIGUSR1, in one line with the period."""
    log = tmp_path / "log"
    flags = ("--stats", "1s", "--stats-one-line-date", "--stats-unit", "bits", "--stats-log-level", "NOTICE")
    server = start_resticd(tmp_path / "store", "--bwlimit", "1M", "--log-file", str(log), *flags)
    other = start_resticd(":memory:", "--bwlimit", "1M", "--stats", "0")
    noise = tmp_path / "noise"
    noise.write_bytes(os.urandom(3 * 1024 * 1024))
    restic = Restic(server.repository(), tmp_path, options=("--no-cache",))
    restic("init")
    restic("backup", noise)
    assert server.stop() in (0, -15)
    lines = re.findall(r"NOTICE: (\d{4}/\d\d/\d\d \d\d:\d\d:\d\d - .*)", log.read_text())
    assert lines
    assert any(re.search(r" MiB / .* MiB, \d+%, .* [KM]ibit/s, ETA \d+s", line) for line in lines), lines
    body = os.urandom(4 * 1024 * 1024)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(ask, other.port, "POST", blob(body), body)

        def report() -> re.Match[str] | None:
            os.kill(other.pid, signal.SIGUSR1)
            return re.search(r" \* +/data/[0-9a-f]+…[0-9a-f]+: +\d+% / 4 MiB, .*/s, .*, upload", other.output())

        wait_until(report)
        assert "Elapsed time:" in other.output()
        assert "Requests:" in other.output()
        answer.result()


def test_under_systemd(start_resticd: Start, tmp_path: Path) -> None:
    """Lines for the journal have its priorities, and no time: the journal has it."""
    port = free_port()
    journal = tmp_path / f"twistd-{port}.log"
    journal.touch()
    stream = f"{journal.stat().st_dev}:{journal.stat().st_ino}"
    server = start_resticd(":memory:", "-v", *LOGIN, port=port, environment={"JOURNAL_STREAM": stream})
    ask(server.port, "GET", "/config", login=("eve", "x"))
    wait_until(lambda: "HTTP/1.1" in journal.read_text())
    lines = journal.read_text().splitlines()
    assert f"<5>NOTICE: listening on {server.url}/" in lines
    assert '<5>NOTICE: login refused from 127.0.0.1 for "eve": wrong user or password' in lines
    assert any(line.startswith("<6>INFO  : 127.0.0.1 - - [") for line in lines)
    assert all(re.match(r"<[3-7]>[A-Z]+ *: ", line) for line in lines), lines


def test_the_audit_log_under_load(start_resticd: Start, tmp_path: Path) -> None:
    """Every change, refusal and wrong login of many connections is there once, while the file is moved away."""
    audit = tmp_path / "audit"
    server = start_resticd(tmp_path / "store", "--append-only", "--audit-log", str(audit), *LOGIN)
    bodies = [number.to_bytes(50, "big") for number in range(400)]

    def work(body: bytes) -> None:
        assert ask(server.port, "POST", blob(body), body, login=ME).status == 200
        assert ask(server.port, "DELETE", blob(body), login=ME).status == 403
        if body[-1] < 50:  # each from an address of its own: guesses from one are held up
            source = f"127.0.1.{body[-1] + 1}"
            assert ask(server.port, "GET", "/config", login=("eve", "x"), source=source).status == 401

    with ThreadPoolExecutor(16) as pool:
        running = [pool.submit(work, body) for body in bodies]
        for number in range(1, 4):
            wait_until(lambda: audit.exists() and audit.stat().st_size > 5000)
            audit.rename(tmp_path / f"audit.{number}")
            os.kill(server.pid, signal.SIGHUP)
        for each in running:
            each.result()
    server.stop()
    records = [record for path in sorted(tmp_path.glob("audit*")) for record in objects(path)]
    names = sorted(blob(body).rpartition("/")[2] for body in bodies)
    for action, outcome in (("store", "done"), ("delete", "refused")):
        found = [record for record in records if (record["action"], record["outcome"]) == (action, outcome)]
        assert sorted(record["name"] for record in found) == names
        assert {(record["user"], record["address"]) for record in found} == {("me", "127.0.0.1")}
    logins = [record for record in records if record["action"] == "login"]
    wrong = [body[-1] + 1 for body in bodies if body[-1] < 50]
    assert sorted(record["address"] for record in logins) == sorted(f"127.0.1.{number}" for number in wrong)
    assert {record["user"] for record in logins} == {"eve"}
    assert len(records) == 2 * len(bodies) + len(logins)


def test_the_audit_log_has_what_was_refused(start_resticd: Start, tmp_path: Path) -> None:
    """A look at another user's repository too; what may be read is nobody's business."""
    audit = tmp_path / "audit"
    server = start_resticd(":memory:", "--private-repos", "--audit-log", str(audit), *LOGIN)
    body = b"config"
    assert ask(server.port, "POST", "/me/config", body, login=ME).status == 200
    assert ask(server.port, "POST", "/me/config", body, login=ME).status == 403
    assert ask(server.port, "GET", "/me/config", login=ME).status == 200
    assert ask(server.port, "DELETE", "/me/", login=ME).status == 501
    for method, path in (("GET", "/you/keys/"), ("GET", "/you/config"), ("HEAD", blob(body, repository="/you/"))):
        assert ask(server.port, method, path, login=ME).status == 403
    records = objects(audit)
    assert [(record["action"], record["outcome"], record["repository"]) for record in records] == [
        ("store", "done", "/me"),
        ("store", "refused", "/me"),
        ("remove", "refused", "/me"),
        *[("read", "refused", "/you")] * 3,
    ]
    assert records[1]["reason"] == "the repository has a config already"
    assert records[3]["reason"] == "this repository belongs to another user"
    assert (records[5]["type"], records[5]["name"]) == ("data", blob(body).rpartition("/")[2])
