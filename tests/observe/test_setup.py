from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
from support.waiting import wait_until
from twisted.application.service import Application
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogBeginner, Logger, LogPublisher

from resticd.errors import ConfigurationError
from resticd.observe.levels import Level
from resticd.observe.setup import Log, LogOptions, is_journal

TWISTD: dict[str, Any] = {"nodaemon": False, "debug": False, "logfile": None, "syslog": False, "logger": None}


@pytest.mark.parametrize(
    ("options", "level"),
    [
        (LogOptions(), Level.NOTICE),
        (LogOptions(verbose=1), Level.INFO),
        (LogOptions(verbose=2), Level.DEBUG),
        (LogOptions(verbose=7), Level.DEBUG),
        (LogOptions(quiet=True), Level.ERROR),
        (LogOptions(log_level="CRITICAL"), Level.CRITICAL),
    ],
)
def test_the_flags_decide_the_level(options: LogOptions, level: Level) -> None:
    assert options.level() is level
    assert Log(options, Clock()).level is level


@pytest.mark.parametrize(
    ("options", "twistd", "message"),
    [
        (LogOptions(verbose=1, quiet=True), None, "-q: not together with -v"),
        (LogOptions(verbose=1, log_level="INFO"), None, "--log-level: not together with -v or -q"),
        (LogOptions(quiet=True, log_level="INFO"), None, "--log-level: not together with -v or -q"),
        (LogOptions(log_level="LOUD"), None, "--log-level: .*: LOUD"),
        (LogOptions(syslog=True, log_file="x"), None, "--syslog: not together with --log-file"),
        (LogOptions(syslog=True, syslog_facility="X"), None, "--syslog-facility: .*: X"),
        (LogOptions(log_file="/nonexistent/x"), None, "--log-file: cannot open /nonexistent/x: No such file"),
        (LogOptions(log_file="x"), {"logfile": "y"}, "--log-file: not together with twistd's --logfile"),
        (LogOptions(syslog=True), {"syslog": True}, "--syslog: not together with twistd's"),
        (LogOptions(use_json_log=True), {}, "--use-json-log: needs --log-file or --syslog"),
        (LogOptions(use_json_log=True), {"nodaemon": True, "logfile": "y"}, "--use-json-log: needs --log-file"),
    ],
)
def test_flags_that_cannot_be_meant(options: LogOptions, twistd: dict | None, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Log(options, Clock(), twistd=None if twistd is None else TWISTD | twistd)


def test_the_journal_is_known_by_its_device_and_inode() -> None:
    status = os.fstat(2)
    assert is_journal({"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}, 2)
    assert not is_journal({"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino + 1}"}, 2)
    assert not is_journal({}, 2)
    assert not is_journal({"JOURNAL_STREAM": "0:0"}, 9999)


class Process:
    """A publisher and what else Twisted has one of."""

    def __init__(self, options: LogOptions, twistd: dict | None = None) -> None:
        self.publisher = LogPublisher()
        with open(os.devnull, "w") as nowhere:  # noqa: PTH123
            self.beginner = LogBeginner(self.publisher, nowhere, sys, warnings)
        self.logger = Logger(namespace="resticd.x", observer=self.publisher)
        self.clock = Clock()
        self.log = Log(options, self.clock, twistd=twistd, environ={}, publisher=self.publisher, beginner=self.beginner)


def test_in_the_foreground_early_entries_are_written_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    process = Process(LogOptions(log_file=str(tmp_path / "log")))
    process.logger.warn("early")
    process.log.begin()
    process.logger.warn("late")
    process.logger.info("quiet")
    assert re.findall(r" NOTICE: (\w+)\n", (tmp_path / "log").read_text()) == ["early", "late"]


def test_secrets_that_the_log_was_told_are_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    process = Process(LogOptions(log_file=str(tmp_path / "log"), verbose=2))
    process.log.scrubber.hide("hunter2hunter2")
    process.log.begin()
    process.logger.debug("{x}", x=["hunter2hunter2"])
    assert "DEBUG : ['***']" in (tmp_path / "log").read_text()


def test_the_file_is_followed_and_reopened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    path = tmp_path / "log"
    process = Process(LogOptions(log_file=str(path)))
    process.log.begin()
    path.rename(tmp_path / "log.1")
    process.log.reopen()
    process.logger.warn("one")
    path.unlink()
    path.mkdir()
    process.log.reopen()
    process.logger.warn("two")
    path.rmdir()
    process.clock.advance(1)
    process.logger.warn("three")
    assert (tmp_path / "log.1").read_text() == ""
    assert path.read_text().endswith("NOTICE: three\n")


def test_twistd_gets_our_observer_through_the_application(tmp_path: Path) -> None:
    process = Process(LogOptions(log_file=str(tmp_path / "log")), TWISTD)
    application = Application("resticd")
    process.log.attach(application)
    observer = application.getComponent(ILogObserver)
    process.publisher.addObserver(observer)
    process.log.start()
    process.logger.warn("once")
    assert (tmp_path / "log").read_text().count("once") == 1
    with pytest.raises(RuntimeError):
        Process(LogOptions(), TWISTD).log.begin()


SERVICE = """
import os
from twisted.application.service import Service, ServiceMaker
from twisted.internet import reactor
from twisted.logger import Logger
from twisted.python import usage
from resticd.observe.setup import Log, LogOptions

class Options(usage.Options):
    optFlags = [["syslog", None, ""], ["json", None, ""], ["verbose", "v", ""]]
    optParameters = [["log-file", None, None, ""]]

logger = Logger(namespace="resticd")

class Example(Service):
    def __init__(self, log):
        self.log = log
        logger.warn("made")
    def setServiceParent(self, parent):
        self.log.attach(parent)
        super().setServiceParent(parent)
    def startService(self):
        super().startService()
        self.log.start()
        logger.warn("started token={t}", t="abc")
        logger.info("information")
        logger.debug("debugging")
        reactor.callLater(0, self.rotate)
    def rotate(self):
        os.rename("ours", "ours.1") if os.path.exists("ours") else None
        self.log.reopen()
        logger.warn("rotated")
        reactor.stop()

def makeService(options):
    flags = LogOptions(verbose=options["verbose"], log_file=options["log-file"], use_json_log=bool(options["json"]))
    return Example(Log(flags, reactor, twistd=options.parent))
"""

PLUGIN = """
from twisted.application.service import ServiceMaker
example = ServiceMaker("example", "example_service", "An example.", "example")
"""


class Twistd:
    """A real ``twistd`` that runs a service which logs "made", "started" and "rotated", and ends."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "twisted/plugins").mkdir(parents=True)
        (path / "twisted/plugins/example_plugin.py").write_text(PLUGIN)
        (path / "example_service.py").write_text(SERVICE)

    def run(self, *arguments: str, status: int = 0) -> tuple[str, str]:
        """What it wrote to standard output and standard error."""
        environment = dict(os.environ, PYTHONPATH=str(self.path))
        environment.pop("JOURNAL_STREAM", None)
        command = [Path(sys.executable).with_name("twistd"), "--pidfile=", *arguments]
        done = subprocess.run(
            command, cwd=self.path, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == status, done.stderr
        return done.stdout, done.stderr

    def read(self, name: str) -> str:
        return (self.path / name).read_text()


@pytest.fixture
def twistd(tmp_path: Path) -> Twistd:
    return Twistd(tmp_path)


def test_twistd_writes_its_own_log_where_no_flag_is_given(twistd: Twistd) -> None:
    out, err = twistd.run("-n", "example")
    assert err == ""
    lines = out.splitlines()
    assert [line.split("] ")[1] for line in lines if "resticd#warn" in line] == ["made", "started token=***", "rotated"]
    assert "information" not in out
    assert "debugging" not in out
    assert sum("twistd" in line and "starting up" in line for line in lines) == 1


@pytest.mark.parametrize("flag", ["--logfile=theirs", "--logger=twisted_logger.make"])
def test_twistds_own_flags_keep_their_meaning(twistd: Twistd, flag: str) -> None:
    (twistd.path / "twisted_logger.py").write_text(
        "from twisted.logger import textFileLogObserver\ndef make(): return textFileLogObserver(open('theirs', 'w'))\n"
    )
    out, _ = twistd.run("-n", flag, "example", "-v")
    assert out == ""
    lines = twistd.read("theirs").splitlines()
    assert [sum(word in line for line in lines) for word in ("made", "started", "information", "debugging")] == [
        1,
        1,
        1,
        0,
    ]


def test_a_log_file_takes_twistds_place(twistd: Twistd) -> None:
    out, err = twistd.run("-n", "example", "--log-file", "ours")
    assert (out, err) == ("", "")
    assert re.findall(r"^\S+ \S+ NOTICE: (.*)\n", twistd.read("ours.1"), re.MULTILINE) == ["made", "started token=***"]
    assert re.findall(r"^\S+ \S+ NOTICE: (.*)\n", twistd.read("ours"), re.MULTILINE) == ["rotated"]
    assert not (twistd.path / "twistd.log").exists()


def test_a_daemon_logs_to_the_file_that_the_flag_named(twistd: Twistd) -> None:
    twistd.run("--rundir=/", "example", "--log-file", "ours")
    wait_until(lambda: (twistd.path / "ours").exists() and "rotated" in twistd.read("ours"))


def test_json_goes_to_standard_error(twistd: Twistd) -> None:
    out, err = twistd.run("-n", "example", "--json")
    assert out == ""
    assert [json.loads(line)["msg"] for line in err.splitlines()] == ["made", "started token=***", "rotated"]


def test_under_systemd_lines_have_priorities_and_no_time(twistd: Twistd) -> None:
    journal = twistd.path / "journal"
    with journal.open("w") as stream:
        status = os.fstat(stream.fileno())
        environment = dict(os.environ, PYTHONPATH=str(twistd.path), JOURNAL_STREAM=f"{status.st_dev}:{status.st_ino}")
        command = [Path(sys.executable).with_name("twistd"), "--pidfile=", "-n", "example"]
        subprocess.run(command, cwd=twistd.path, env=environment, stdout=stream, stderr=stream, timeout=60, check=True)
    assert journal.read_text().splitlines() == [
        "<5>NOTICE: made",
        "<5>NOTICE: started token=***",
        "<5>NOTICE: rotated",
    ]
