"""Where the log goes: flags, standard error, systemd's journal, syslog, or whatever ``twistd`` was told.

Who runs the service decides who installs the observer:

- ``resticd serve restic`` calls ``Log.begin``, which gives the observer to Twisted's ``globalLogBeginner``.
- ``twistd`` begins logging itself, after ``makeService`` and with the ``ILogObserver`` component of the application if
  there is one. It hands the application to the service in ``setServiceParent``, where the service calls ``Log.attach``.
  The observer takes the place of ``twistd``'s own then, so nothing is written twice and there is no ``twistd.log``.
- Where no flag says otherwise ``twistd`` keeps its log: ``--logfile``, ``--syslog``, ``--prefix``, ``--logger`` and
  standard output under ``-n`` are as Twisted's users know them. ``Log.start``, from ``startService``, only puts our
  levels and the scrubber in front of its observer.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Mapping
from functools import partial
from platform import python_version
from typing import TYPE_CHECKING, Any

from attrs import frozen
from twisted.logger import ILogObserver, Logger, globalLogBeginner, globalLogPublisher
from twisted.python.components import Componentized

from resticd import __version__
from resticd.errors import ConfigurationError
from resticd.observe.appendfile import AppendFile
from resticd.observe.destinations import Destination, FileDestination, StreamDestination, SyslogDestination
from resticd.observe.entry import Entry, journal_form, json_form, plain_form, text_form
from resticd.observe.levels import Level, parse_level
from resticd.observe.observers import FilteredObserver, LogObserver
from resticd.observe.scrub import Scrubber
from twisted import __version__ as twisted_version

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime
    from twisted.logger import LogBeginner, LogPublisher

    from resticd.observe.log import Put

STANDARD_ERROR = 2
#: How long an access line may wait for others, in seconds.
MOMENT = 0.05


@frozen
class LogOptions:
    """What the flags say of the log, as they are given. ``log_level`` None is not given."""

    verbose: int = 0
    quiet: bool = False
    log_level: str | None = None
    log_file: str | None = None
    use_json_log: bool = False
    syslog: bool = False
    syslog_facility: str = "DAEMON"

    def level(self) -> Level:
        """The least level to write. Raises ``ConfigurationError`` for flags that contradict each other."""
        if self.verbose and self.quiet:
            raise ConfigurationError("-q: not together with -v")
        if self.log_level is not None:
            if self.verbose or self.quiet:
                raise ConfigurationError("--log-level: not together with -v or -q")
            return parse_level("log-level", self.log_level)
        if self.quiet:
            return Level.ERROR
        return (Level.NOTICE, Level.INFO, Level.DEBUG)[min(self.verbose, 2)]


class Log:
    """The log of one process.

    :param clock: tells when to look after a file that may have been rotated.
    :param twistd: ``twistd``'s own options (``Options.parent``), None in the foreground.
    :param environ: for ``JOURNAL_STREAM``.
    :param beginner: and ``publisher``: Twisted's own, but for tests.
    :ivar level: the least level that is written.
    :ivar scrubber: takes secrets that it must never let pass (``hide``).
    :raises ConfigurationError: for flags that contradict each other, and a file or syslog that cannot be opened.
    """

    def __init__(
        self,
        options: LogOptions,
        clock: IReactorTime,
        *,
        twistd: Mapping[str, Any] | None = None,
        environ: Mapping[str, str] = os.environ,
        publisher: LogPublisher = globalLogPublisher,
        beginner: LogBeginner = globalLogBeginner,
    ) -> None:
        self.level = options.level()
        self.scrubber = Scrubber()
        self._publisher = publisher
        self._beginner = beginner
        self._trace: list[tuple[object, ILogObserver]] = []
        self._strangers: list[ILogObserver] = []
        self._observer = make_observer(options, self.scrubber, clock, twistd, environ)

    def begin(self, *, discard: bool = False) -> None:
        """Begin logging, in the foreground. What was logged before is written now.

        :param discard: unless another process has logged the same.
        """
        if self._observer is None:
            raise RuntimeError("twistd begins logging by itself")
        self._beginner.beginLoggingTo([self._observer], discardBuffer=discard, redirectStandardIO=False)

    def attach(self, application: object) -> None:
        """Take what ``twistd`` hands to ``setServiceParent``: have it log to our observer, if there is one."""
        if self._observer is not None:
            if isinstance(application, Componentized):
                application.setComponent(ILogObserver, self._observer)
            return
        # Twisted notes in log_trace who sees an event. This one is seen by those that observe now and, since twistd
        # publishes what was logged early once more, by the observer that it is going to add.
        Logger(namespace="resticd", observer=self._publisher).info(
            "resticd {version}, Twisted {twisted}, Python {python}",
            version=__version__,
            twisted=twisted_version,
            python=python_version(),
            log_trace=self._trace,
        )
        self._strangers = self._seen_by()

    def start(self) -> None:
        """Put our levels and the scrubber in front of ``twistd``'s observer, if that one is used."""
        for observer in self._seen_by():
            if observer not in self._strangers:
                self._publisher.removeObserver(observer)
                self._publisher.addObserver(FilteredObserver(self.level, self.scrubber, observer))
        self._trace.clear()

    @property
    def put(self) -> Put | None:
        """Writes access lines without a detour through Twisted's logger; None where the log is ``twistd``'s own."""
        return None if self._observer is None else self._observer.put

    def reopen(self) -> None:
        """Open the log file again (SIGHUP)."""
        if self._observer is not None:
            self._observer.reopen()

    def _seen_by(self) -> list[ILogObserver]:
        return [observer for publisher, observer in self._trace if publisher is self._publisher]


def make_observer(
    options: LogOptions,
    scrubber: Scrubber,
    clock: IReactorTime,
    twistd: Mapping[str, Any] | None,
    environ: Mapping[str, str],
) -> LogObserver | None:
    """The observer that the flags ask for; None where ``twistd``'s own is meant. See ``Log``."""

    def observe(form: Callable[[Entry], str], destination: Destination) -> LogObserver:
        form = json_form if options.use_json_log else form
        made = LogObserver(options.level(), scrubber, form, destination, partial(clock.callLater, MOMENT))
        atexit.register(made.flush)
        return made

    twistd_told = twistd is not None and any(twistd.get(name) for name in ("logfile", "syslog", "logger"))
    daemonizes = twistd is not None and not (twistd.get("nodaemon") or twistd.get("debug"))
    if options.log_file is not None or options.syslog:
        flag = "--syslog" if options.syslog else "--log-file"
        if options.log_file is not None and options.syslog:
            raise ConfigurationError("--syslog: not together with --log-file")
        if twistd_told:
            raise ConfigurationError(f"{flag}: not together with twistd's --logfile, --syslog and --logger")
    if options.log_file is not None:

        def complain(sentence: str) -> None:
            observer.complain(sentence)

        file = AppendFile(options.log_file, clock, complain, _owner(twistd))
        try:
            file.open()
        except OSError as error:
            raise ConfigurationError(f"--log-file: cannot open {options.log_file}: {error.strerror}") from None
        observer = observe(text_form, FileDestination(file))
        return observer
    if options.syslog:
        return observe(plain_form, SyslogDestination(options.syslog_facility))
    journal = is_journal(environ, STANDARD_ERROR)
    if twistd is None or (not twistd_told and not daemonizes and (journal or options.use_json_log)):
        return observe(journal_form if journal else text_form, StreamDestination(STANDARD_ERROR))
    if options.use_json_log:
        raise ConfigurationError("--use-json-log: needs --log-file or --syslog, as twistd's own log is no JSON")
    return None


def is_journal(environ: Mapping[str, str], fd: int) -> bool:
    """Whether ``fd`` leads to systemd's journal (``JOURNAL_STREAM`` in systemd.exec(5))."""
    try:
        status = os.fstat(fd)
    except OSError:
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _owner(twistd: Mapping[str, Any] | None) -> tuple[int, int] | None:
    """Whose a new log file is to be: ``twistd`` opens it before it becomes that user."""
    if twistd is None or twistd.get("uid") is None:
        return None
    gid = twistd.get("gid")
    return twistd["uid"], -1 if gid is None else gid
