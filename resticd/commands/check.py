"""``resticd check-config``: what is in force, and where each value came from."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

from attrs import evolve

from resticd.assembly import Resolved, check_shareable, resolve_remote
from resticd.config.connection import shown
from resticd.config.flags import format_value
from resticd.config.settings import FLAGS, Settings
from resticd.config.sources import Reading, read_sources, unknown_variables
from resticd.errors import ConfigurationError
from resticd.observe.setup import Log, LogOptions
from resticd.remotes.drivers import REGISTRY
from resticd.remotes.registry import RemoteSpec

Row = tuple[str, str, str]


def check_config(argv: Sequence[str]) -> int:
    """Print a line for each setting: name, value, origin. Secrets are masked.

    A setting that cannot be read ends it with one line. What else would keep the server from starting does so below
    the settings; nothing is connected to, listened on or written.
    """
    reading = read_sources(argv, os.environ)
    spec, mistake = None, None
    if reading.settings.remote:
        try:
            resolved = resolve_remote(reading.settings)
            spec = resolved.spec
            _make_parts(reading.settings, resolved)
        except ConfigurationError as error:
            mistake = error
    rows = [*_settings(reading, spec), *_others(reading, spec)]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for name, value, origin in rows:
        print(f"{name:{widths[0]}}  {value:{widths[1]}}  {origin}")  # noqa: T201 - what the user asked for
    if mistake is not None:
        raise ConfigurationError(reading.settings.explain(mistake))
    return 0


def _make_parts(settings: Settings, resolved: Resolved) -> None:
    """Make what the server is made of, to see that it can be made: passwords, certificates, addresses, the remote."""
    from twisted.internet import reactor as installed

    from resticd.serving import Serving

    reactor: Any = installed
    if settings.processes > 1:
        check_shareable(resolved.spec)
    log = Log(LogOptions(verbose=settings.verbose, quiet=settings.quiet, log_level=settings.log_level), reactor)
    # Standard output is where the settings are printed.
    Serving(reactor, evolve(settings, stdio=False), resolved, log, ended=lambda: None)


def _settings(reading: Reading, spec: RemoteSpec | None) -> Iterator[Row]:
    remote = reading.settings.remote
    yield "remote", shown(remote) if remote else "-", reading.origins["remote"]
    if spec is not None and spec.source:
        yield "  its type", spec.type, spec.source
    for flag in FLAGS:
        value = getattr(reading.settings, flag.attribute)
        text = "(hidden)" if flag.secret and value else format_value(flag, value)
        yield flag.name, text or "-", reading.origins[flag.name]


def _others(reading: Reading, spec: RemoteSpec | None) -> Iterator[Row]:
    """Flags that only rclone has, and variables that nobody reads."""
    known = {}
    if spec is not None and not spec.upstreams:
        options = REGISTRY.driver(spec.type, spec.source).options
        known = {option.flag(spec.type): option for option in options or ()}
    for name, value in sorted(reading.settings.foreign.items()):
        option = known.get(name)
        text = "(no meaning here)" if option is None else "(hidden)" if option.secret else value
        yield name, text, f"--{name}"
    for name in unknown_variables(os.environ):
        yield name, "(no such setting)", "the environment"
