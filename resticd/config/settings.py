"""Every setting, once: the command line, the environment, the settings file and the docs are made from it."""

from __future__ import annotations

from attrs import frozen

from resticd.config.flags import counter, flag, flags_of, parse_text, switch


@frozen(kw_only=True, slots=False)
class ListenSettings:
    """Where to listen."""

    addr: tuple[str, ...] = flag(
        ("localhost:8080",),
        parse_text,
        "ADDRESS",
        "Listen on IP:port, :port, [::1]:port, unix:///path or a Twisted endpoint string.",
        repeats=True,
    )


@frozen(kw_only=True, slots=False)
class PolicySettings:
    """What clients may do."""

    append_only: bool = switch("Delete nothing but locks, and overwrite nothing.")
    delete_repos: bool = switch("Let clients delete whole repositories.")


@frozen(kw_only=True, slots=False)
class LogSettings:
    """What is written to the log."""

    verbose: int = counter("Log access lines; twice: everything.", short="v")
    quiet: bool = switch("Log errors only.", short="q")


@frozen(kw_only=True, slots=False)
class Settings(ListenSettings, PolicySettings, LogSettings):
    """All settings, as they are in force.

    :ivar remote: what to serve, as rclone names it; on the command line it stands without a flag.
    """

    remote: str = ""


FLAGS = flags_of(Settings)
