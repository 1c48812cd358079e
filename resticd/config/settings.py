"""Every setting, once: the command line, the environment, the settings file and the docs are made from it."""

from __future__ import annotations

import re
from collections.abc import Mapping

from attrs import field, frozen

from resticd.bandwidth import Limits
from resticd.config.bwlimit import parse_bwlimit
from resticd.config.flags import (
    counter,
    flag,
    flags_of,
    one_of,
    parse_base,
    parse_count,
    parse_duration,
    parse_header,
    parse_http2,
    parse_number,
    parse_origin,
    parse_text,
    parse_workers,
    switch,
)

#: rclone's (``fs/log.go``), the aliases at the end.
LEVELS = ("DEBUG", "INFO", "NOTICE", "ERROR", "CRITICAL", "WARNING", "ALERT", "EMERGENCY")
#: RFC 5424, section 6.2.1, and syslog(3).
FACILITIES = (
    *("KERN", "USER", "MAIL", "DAEMON", "AUTH", "SYSLOG", "LPR", "NEWS", "UUCP", "CRON", "AUTHPRIV", "FTP"),
    *(f"LOCAL{number}" for number in range(8)),
)
#: What is done for speed alone, each in a module of its own.
TECHNIQUES = (
    "lane",
    "quick-events",
    "direct-receive",
    "direct-send",
    "small-uploads",
    "ring-uploads",
    "direct-writes",
    "prompt-reads",
    "open-files",
    "directory-memory",
    "bulk-tls",
    "direct-tls",
    "h2-bodies",
)


@frozen(kw_only=True, slots=False)
class ListenSettings:
    """Where to listen, and TLS."""

    addr: tuple[str, ...] = flag(
        ("localhost:8080",),
        parse_text,
        "ADDRESS",
        "Listen on IP:port, :port, [::1]:port, unix:///path or a Twisted endpoint string. Sockets of the service "
        "manager replace it.",
        repeats=True,
    )
    stdio: bool = switch("Speak HTTP/2 on standard input and output instead, as restic's rclone backend does.")
    http2: str = flag(
        "on",
        parse_http2,
        "on|off|prefer",
        "Speak HTTP/2 besides HTTP/1.1. Clients on TLS that know both are offered HTTP/1.1 first, which is faster "
        "here, or HTTP/2 with 'prefer'.",
    )
    cert: str | None = flag(None, parse_text, "FILE", "TLS certificate with its chain (PEM); reread when it changes.")
    key: str | None = flag(None, parse_text, "FILE", "Private key of --cert (PEM).")
    client_ca: str | None = flag(
        None, parse_text, "FILE", "Clients must show a certificate of one of these authorities (PEM)."
    )
    min_tls_version: str = flag(
        "tls1.2",
        one_of("tls1.0", "tls1.1", "tls1.2", "tls1.3"),
        "VERSION",
        "Oldest TLS version: tls1.0, tls1.1, tls1.2 or tls1.3.",
    )
    unix_socket_mode: str = flag("600", parse_text, "MODE", "Permissions of unix sockets, octal.")
    unix_socket_group: str | None = flag(None, parse_text, "GROUP", "Group of unix sockets.")
    workers: int = flag(
        1,
        parse_workers,
        "NUMBER",
        "How many processes serve, or 'auto' for one on each processor that there is. More than one help where "
        "many small requests or TLS keep one processor busy.",
    )


@frozen(kw_only=True, slots=False)
class HttpSettings:
    """What all requests have in common."""

    baseurl: str = flag("", parse_base, "PREFIX", "Serve below this path; x, /x and /x/ are alike.")
    allow_origin: str | None = flag(None, parse_origin, "ORIGIN", "Let scripts of this origin read answers (CORS).")
    response_header: tuple[tuple[str, str], ...] = flag(
        (), parse_header, "HEADER", "Add this header, 'Name: value', to every answer.", repeats=True
    )
    max_header_bytes: int = flag(4096, parse_count, "BYTES", "Answer 431 to a request with larger headers.")
    server_read_timeout: float = flag(3600.0, parse_duration, "DURATION", "Longest time for one request's body.")
    server_write_timeout: float = flag(3600.0, parse_duration, "DURATION", "Longest time for one answer.")
    shutdown_timeout: float = flag(
        30.0, parse_duration, "DURATION", "How long running transfers may go on when the server is stopped."
    )


@frozen(kw_only=True, slots=False)
class LoginSettings:
    """Who clients are."""

    htpasswd: str | None = flag(
        None, parse_text, "FILE", "Apache password file (bcrypt, $apr1$, {SHA}). Read again when it changes."
    )
    user: str | None = flag(None, parse_text, "NAME", "The one user's name.")
    pass_: str | None = flag(None, parse_text, "PASSWORD", "The one user's password.", secret=True)
    realm: str | None = flag(None, parse_text, "REALM", "Realm of the login.")
    salt: str = flag("dlPL2MqE", str, "TEXT", "Salt of the stored --pass.", secret=True)
    user_from_header: str | None = flag(None, parse_text, "HEADER", "A trusted proxy names the user in this header.")
    trusted_proxy: tuple[str, ...] = flag(
        (),
        parse_text,
        "ADDRESS",
        "Believe --user-from-header and X-Forwarded-For from this address or network; without the flag from loopback "
        "and unix sockets.",
        repeats=True,
    )


@frozen(kw_only=True, slots=False)
class PolicySettings:
    """What clients may do."""

    append_only: bool = switch("Delete nothing but locks, and overwrite nothing.")
    private_repos: bool = switch("Users see the repositories below /NAME/ alone.")
    delete_repos: bool = switch("Let clients delete whole repositories.")


@frozen(kw_only=True, slots=False)
class LimitSettings:
    """How fast."""

    bwlimit: Limits = flag(
        Limits(),
        parse_bwlimit,
        "LIMITS",
        "Bandwidth: 10M, 10M:100k (up:down), or a timetable such as '08:00,512k 19:00,off'. SIGUSR2 toggles it.",
    )
    bwlimit_file: Limits = flag(Limits(), parse_bwlimit, "LIMITS", "The same, for each transfer.")
    tpslimit: float = flag(0.0, parse_number, "NUMBER", "Requests a second to the remote; 0 is no limit.")
    tpslimit_burst: int = flag(1, parse_count, "NUMBER", "How many of them at once after a quiet time.")


@frozen(kw_only=True, slots=False)
class SpeedSettings:
    """For comparison: what is done for speed alone."""

    without: tuple[str, ...] = flag(
        (),
        one_of(*TECHNIQUES),
        "TECHNIQUE",
        f"Do without one of the techniques of docs/design.md: {', '.join(TECHNIQUES)}.",
        repeats=True,
    )


@frozen(kw_only=True, slots=False)
class RemoteSettings:
    """Where remotes are described, and how to talk to them."""

    config: str | None = flag(
        None,
        str,
        "FILE",
        "The remotes file, in rclone's format; rclone's own, or /etc/resticd/rclone.conf, without it.",
    )
    password_command: str = flag("", str, "COMMAND", "Prints the password of an encrypted remotes file.", secret=True)
    rclone: str = flag(
        "rclone",
        parse_text,
        "PROGRAM",
        "The rclone to run for remotes that have no driver of their own: a name or a path.",
    )
    cache_objects: bool = switch("Remember what lists and uploads said of files.", default=True)
    checkers: int = flag(8, parse_count, "NUMBER", "How many parts of a list are read at once.")
    transfers: int = flag(4, parse_count, "NUMBER", "How many parts of a large upload are sent at once.")
    contimeout: float = flag(60.0, parse_duration, "DURATION", "How long connecting to a remote may take.")
    timeout: float = flag(300.0, parse_duration, "DURATION", "How long a remote may make no progress.")
    low_level_retries: int = flag(10, parse_count, "NUMBER", "How often a request to a remote is tried.")
    user_agent: str | None = flag(None, parse_text, "TEXT", "What remotes are told that this is.")
    ca_cert: tuple[str, ...] = flag((), parse_text, "FILE", "Trust these authorities of remotes (PEM).", repeats=True)
    no_check_certificate: bool = switch("Accept every certificate of a remote. Unsafe.")


@frozen(kw_only=True, slots=False)
class LogSettings:
    """What is written to the log, and when."""

    verbose: int = counter("Log access lines; twice: everything.", short="v")
    quiet: bool = switch("Log errors only.", short="q")
    log_level: str | None = flag(
        None,
        one_of(*LEVELS, "OFF"),
        "LEVEL",
        "Log this level and what is worse: DEBUG, INFO, NOTICE (without any flag), ERROR, CRITICAL or OFF.",
    )
    log_file: str | None = flag(
        None, parse_text, "FILE", "Log to this file; opened again on SIGHUP and after rotation."
    )
    use_json_log: bool = switch("Log in JSON, an object a line.")
    syslog: bool = switch("Log to syslog.")
    syslog_facility: str = flag("DAEMON", one_of(*FACILITIES), "NAME", "Facility for --syslog.")
    audit_log: str | None = flag(
        None, parse_text, "FILE", "Write who created, deleted or was refused what to this file, in JSON lines."
    )
    stats: float = flag(60.0, parse_duration, "DURATION", "Log a report of transfers this often; 0 for none.")
    stats_one_line: bool = switch("Make the report one line.")
    stats_one_line_date: bool = switch("Make the report one line that begins with the date.")
    stats_unit: str = flag("bytes", one_of("bits", "bytes"), "UNIT", "Rates in the report: bits or bytes.")
    stats_log_level: str = flag("INFO", one_of(*LEVELS), "LEVEL", "Level of the report, as for --log-level.")


@frozen(kw_only=True, slots=False)
class Settings(
    ListenSettings,
    HttpSettings,
    LoginSettings,
    PolicySettings,
    LimitSettings,
    RemoteSettings,
    LogSettings,
    SpeedSettings,
):
    """All settings, as they are in force.

    :ivar remote: what to serve, as rclone names it; on the command line it stands without a flag.
    :ivar foreign: rclone's other flags, for drivers that honour them; the rest has no meaning here.
    :ivar origins: who said each value, by the flag's name (``config.sources``); for messages.
    """

    remote: str = ""

    @property
    def limits_bandwidth(self) -> bool:
        """Whether bandwidth is, or may at some time of the week be, limited."""
        return self.bwlimit != Limits() or self.bwlimit_file != Limits()

    @property
    def processes(self) -> int:
        """How many processes serve: one talks to standard input."""
        return 1 if self.stdio else self.workers

    foreign: dict[str, str] = field(factory=dict, repr=False)
    origins: Mapping[str, str] = field(factory=dict, repr=False, eq=False)

    def explain(self, error: BaseException | None) -> str:
        """The sentence of an error that begins with a flag, with the file and line, or the variable, that said it."""
        sentence = str(error)
        flag = re.match(r"--([a-z0-9-]+)(?=: )", sentence)
        origin = self.origins.get(flag[1], "default") if flag is not None else "default"
        if flag is None or origin in (flag[0], "default"):
            return sentence
        where = f"{origin}: {flag[1]}" if ":" in origin else origin
        return where + sentence[flag.end() :]


#: The flags by the class that they belong to, with its title.
GROUPS = tuple(
    ((group.__doc__ or "").strip(), flags_of(group))
    for group in (
        ListenSettings,
        HttpSettings,
        LoginSettings,
        PolicySettings,
        LimitSettings,
        RemoteSettings,
        LogSettings,
        SpeedSettings,
    )
)

FLAGS = tuple(flag for _, flags in GROUPS for flag in flags)

#: Names of flags that a reload cannot change.
NEEDS_RESTART = frozenset(flag.name for group in (ListenSettings, LogSettings) for flag in flags_of(group))
