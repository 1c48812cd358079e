"""Parts of the server as the settings describe them. Raises ``ConfigurationError`` where they cannot be made."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from attrs import evolve, frozen
from twisted.logger import Logger

from resticd.auth.chain import make_authenticator
from resticd.auth.proxies import TrustedProxies
from resticd.bandwidth import Bandwidth
from resticd.config.connection import parse_connection
from resticd.config.flags import flags_of
from resticd.config.rcloneconf import find_remotes_file, read_remotes_file
from resticd.config.remotes import Remotes
from resticd.config.settings import FLAGS, NEEDS_RESTART, RemoteSettings
from resticd.errors import ConfigurationError
from resticd.http.gate import Gate
from resticd.http.site import SiteSettings
from resticd.listeners.addresses import parse_address
from resticd.listeners.handshake import common_name
from resticd.listeners.listening import Listeners, Sharing, Source
from resticd.listeners.stdio import StdioListener, take_standard_output
from resticd.listeners.systemd import take_inherited_sockets
from resticd.listeners.tls import configure_tls
from resticd.listeners.unixsocket import parse_group, parse_mode
from resticd.observe.scrub import Scrubber, names_secret
from resticd.observe.setup import Log, LogOptions
from resticd.observe.sinks import Sinks
from resticd.observe.stats import Statistics, StatsOptions
from resticd.remotes.combine import CombineRemote
from resticd.remotes.drivers import BRIDGE, REGISTRY
from resticd.remotes.registry import Loan, RcloneSettings, RemoteSpec
from resticd.remotes.wrappers.cache import CacheRemote
from resticd.remotes.wrappers.limiter import LimitedRemote
from resticd.remotes.wrappers.throttle import ThrottledRemote
from resticd.remotes.wrappers.verifying import VerifyingRemote
from resticd.repository.operations import Repositories
from resticd.repository.policy import Policy
from resticd.transport.limiter import TokenBucket
from resticd.transport.proxies import Proxies
from resticd.transport.settings import ClientSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from twisted.internet.interfaces import IProtocolFactory
    from twisted.web.resource import IResource

    from resticd.auth.throttle import IThrottle
    from resticd.config.settings import Settings
    from resticd.credit import Credit
    from resticd.http.site import Site
    from resticd.interfaces import IEventSink, IReactor, IRemote
    from resticd.remotes.claims import Claims
    from resticd.remotes.wrappers.cache import Deletions
    from resticd.workers import Workers

_log = Logger(namespace="resticd")

#: Options that hold secrets though their names do not say so, of types that only rclone knows (``rclone config
#: providers`` calls them sensitive).
_SECRETS_OF_RCLONE = frozenset(
    (
        "access_grant",
        "authorization",
        "connection_string",
        "cookies",
        "key",
        "key_pem",
        "master_key",
        "master_keys",
        "mnemonic",
        "sas_url",
        "session_id",
    )
)


class Resolved(NamedTuple):
    """What the settings name."""

    spec: RemoteSpec
    #: the path of the remotes file, if it was read
    remotes_file: str | None


def resolve_remote(settings: Settings) -> Resolved:
    """What the settings name. Blocks while the remotes file is read."""
    read = partial(read_remotes_file, settings.config, os.environ, settings.password_command)
    remotes = Remotes(REGISTRY, os.environ, read, settings.foreign)
    spec = remotes.resolve(settings.remote)
    return Resolved(spec, remotes.file.path if "file" in vars(remotes) else None)


@frozen
class Shared:
    """What a process shares with others that serve the same remote (``resticd.processes``); None where it is alone.

    :ivar up: what may pass now of uploads, and ``down`` of downloads, and ``requests`` to the remote.
    :ivar claims: claims on keys, for the digest of a remote.
    :ivar throttle: slows down who guesses passwords.
    :ivar deletions: tells caches what others delete.
    :ivar sources: where to listen, bound by another process, see ``sharing``.
    """

    up: Credit | None = None
    down: Credit | None = None
    requests: Credit | None = None
    claims: Callable[[str], Claims] | None = None
    throttle: IThrottle | None = None
    deletions: Deletions | None = None
    sources: Sequence[Source] = ()
    sharing: Sharing | None = None


#: One process alone.
ALONE = Shared()


def make_remote(
    settings: Settings,
    resolved: Resolved,
    reactor: IReactor,
    workers: Workers,
    bandwidth: Bandwidth,
    *,
    shared: Shared = ALONE,
) -> IRemote:
    """What was resolved, with its wrappers."""
    spec, remotes_file = resolved
    for warning in spec.warnings:
        _log.warn("{warning}", warning=warning)
    for name in settings.foreign:
        if not name.startswith(f"{spec.type}-") and not _is_bridged(spec):
            _log.debug("--{name} has no meaning here", name=name)
    limiter = None
    if settings.tpslimit:
        limiter = TokenBucket(reactor, settings.tpslimit, settings.tpslimit_burst, shared.requests)
    loan = Loan(
        reactor,
        workers,
        client_settings(settings),
        remotes_file,
        settings.checkers,
        limiter,
        without=settings.without if settings.cache_objects else (*settings.without, "directory-memory"),
        rclone=rclone_settings(settings, spec),
    )
    if shared.claims is not None:
        loan = evolve(loan, claims=shared.claims)

    def wrapped(spec: RemoteSpec) -> IRemote:
        if spec.upstreams:
            return CombineRemote({name: wrapped(upstream) for name, upstream in spec.upstreams.items()})
        remote = REGISTRY.open(spec, loan)
        driver = REGISTRY.driver(spec.type, spec.source)
        if limiter is not None and not driver.counts_requests:
            remote = LimitedRemote(remote, limiter)
        if settings.cache_objects and driver.remembers:
            remote = CacheRemote(remote, reactor, deletions=shared.deletions)
        if settings.limits_bandwidth:
            remote = ThrottledRemote(remote, reactor, bandwidth, settings.bwlimit_file)
        if not remote.capabilities.verifies_hash:
            remote = VerifyingRemote(remote, workers)
        return remote

    return wrapped(spec)


def rclone_settings(settings: Settings, spec: RemoteSpec) -> RcloneSettings:
    """How rclone is run for remotes that have no driver of their own."""
    return RcloneSettings(
        settings.rclone,
        # Asked for again, since a remote that is described on the fly may lead to a section.
        find_remotes_file(settings.config, os.environ) or "",
        settings.password_command,
        settings.foreign,
        os.environ,
        Scrubber(secrets_of(settings, spec)).scrub,
    )


def _is_bridged(spec: RemoteSpec) -> bool:
    """Whether rclone serves a remote, or a part of it."""
    if spec.upstreams:
        return any(map(_is_bridged, spec.upstreams.values()))
    return REGISTRY.driver(spec.type, spec.source) is BRIDGE


def check_parts(settings: Settings, resolved: Resolved, reactor: IReactor, workers: Workers) -> None:
    """Make what processes will be made of that share nothing yet, and throw it away.

    Raises ``ConfigurationError`` where it cannot be made, or not for several processes.
    """
    check_shareable(resolved.spec)
    remote = make_remote(settings, resolved, reactor, workers, Bandwidth(reactor, settings.bwlimit, quiet=True))
    make_resource(settings, reactor, workers, remote, Sinks(()))


def check_shareable(spec: RemoteSpec) -> None:
    """Raises ``ConfigurationError`` where several processes cannot serve the remote."""
    for upstream in spec.upstreams.values():
        check_shareable(upstream)
    if not spec.upstreams and not REGISTRY.driver(spec.type, spec.source).shareable:
        raise ConfigurationError(f"--workers: {spec} is in the memory of one process, so it is served by one alone")


def secrets_of(settings: Settings, spec: RemoteSpec) -> Iterator[str]:
    """All that the log must never show: passwords and keys of the settings and of the remote."""
    for flag in FLAGS:
        value = getattr(settings, flag.attribute)
        if flag.secret and isinstance(value, str) and value != flag.default:
            yield value
    yield from filter(None, map(os.environ.get, ("RCLONE_CONFIG_PASS", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")))
    yield from _secrets_of_remote(spec)


def _secrets_of_remote(spec: RemoteSpec) -> Iterator[str]:
    for upstream in spec.upstreams.values():
        yield from _secrets_of_remote(upstream)
    options = () if spec.upstreams else REGISTRY.driver(spec.type, spec.source).options or ()
    known = {option.name: option.secret for option in options}
    # In the name passwords are obscured, and anybody can undo that.
    for name, value in (*spec.options.items(), *parse_connection(spec.text).parameters.items()):
        if known.get(name, names_secret(name) or name in _SECRETS_OF_RCLONE):
            yield value


def remote_depends_on(settings: Settings, spec: RemoteSpec) -> tuple[object, ...]:
    """All that a remote is made of: equal tuples make equal remotes."""
    names = [flag.attribute for flag in flags_of(RemoteSettings)]
    names += ["tpslimit", "tpslimit_burst", "bwlimit_file", "limits_bandwidth", "without"]
    return (spec, spec.text, _stamp(settings, spec), *(getattr(settings, name) for name in names))


def _stamp(settings: Settings, spec: RemoteSpec) -> object:
    """Tells a remotes file from a changed one, where rclone reads it: what it reads there besides, nobody knows."""
    path = find_remotes_file(settings.config, os.environ) if _is_bridged(spec) else None
    try:
        found = Path(path).stat() if path is not None else None
    except OSError:
        return None
    return found and (found.st_ino, found.st_size, found.st_mtime_ns)


def needs_restart(old: Settings, new: Settings) -> list[str]:
    """The flags that differ and cannot be applied while serving."""
    flags = [flag for flag in FLAGS if flag.name in NEEDS_RESTART]
    return [flag.name for flag in flags if getattr(old, flag.attribute) != getattr(new, flag.attribute)]


def client_settings(settings: Settings) -> ClientSettings:
    """How to talk to remotes over HTTP."""
    made = ClientSettings(
        contimeout=settings.contimeout,
        timeout=settings.timeout,
        low_level_retries=settings.low_level_retries,
        ca_cert=tuple(map(Path, settings.ca_cert)),
        check_certificate=not settings.no_check_certificate,
        proxies=Proxies.from_environment(os.environ),
    )
    return made if settings.user_agent is None else evolve(made, user_agent=settings.user_agent)


def make_resource(
    settings: Settings,
    reactor: IReactor,
    workers: Workers,
    remote: IRemote,
    sink: IEventSink,
    *,
    shared: Shared = ALONE,
) -> IResource:
    """The API over ``remote``, behind the gate."""
    policy = Policy(settings.append_only, settings.private_repos, settings.delete_repos)
    repositories = Repositories(remote, policy, workers, sink)
    return make_gate(settings, repositories, workers, reactor, shared.throttle).resource()


def make_log(settings: Settings, reactor: IReactor, twistd: Mapping[str, Any] | None) -> Log:
    """Where the log goes.

    :param twistd: ``twistd``'s own options, None in the foreground.
    """
    options = LogOptions(
        verbose=settings.verbose,
        quiet=settings.quiet,
        log_level=settings.log_level,
        log_file=settings.log_file,
        use_json_log=settings.use_json_log,
        syslog=settings.syslog,
        syslog_facility=settings.syslog_facility,
    )
    return Log(options, reactor, twistd=twistd)


def stats_options(settings: Settings) -> StatsOptions:
    """How transfers are reported."""
    return StatsOptions.make(
        settings.stats,
        settings.stats_one_line,
        settings.stats_one_line_date,
        settings.stats_unit,
        settings.stats_log_level,
    )


def make_stats(settings: Settings, reactor: IReactor) -> Statistics:
    """The reports of transfers."""
    return Statistics(stats_options(settings), reactor)


def site_settings(settings: Settings) -> SiteSettings:
    """What all requests have in common."""
    return SiteSettings(
        max_header_bytes=settings.max_header_bytes,
        read_timeout=settings.server_read_timeout,
        write_timeout=settings.server_write_timeout,
        response_headers=settings.response_header,
        without=frozenset(settings.without),
    )


def make_gate(
    settings: Settings,
    repositories: Repositories,
    workers: Workers,
    reactor: IReactor,
    throttle: IThrottle | None = None,
) -> Gate:
    """Who may pass. Who starts the program and talks to its standard input needs no login."""
    has_login = settings.htpasswd or settings.user or settings.user_from_header or settings.client_ca
    if settings.private_repos and (settings.stdio or not has_login):
        raise ConfigurationError("--private-repos: there is no login, so nobody would see anything")
    if settings.stdio:
        return Gate(repositories, make_authenticator(workers=workers, clock=reactor))
    authenticator = make_authenticator(
        htpasswd=settings.htpasswd,
        user=settings.user,
        password=settings.pass_,
        salt=settings.salt,
        realm=settings.realm,
        user_from_header=settings.user_from_header,
        trusted_proxies=TrustedProxies.parse(settings.trusted_proxy) if settings.trusted_proxy else None,
        client_ca=settings.client_ca is not None,
        workers=workers,
        clock=reactor,
        throttle=throttle,
    )
    return Gate(
        repositories,
        authenticator,
        base=settings.baseurl,
        allow_origin=settings.allow_origin,
        user_header=settings.user_from_header,
        common_name=common_name,
        lane="lane" not in settings.without,
    )


def make_listeners(
    settings: Settings, site: Site, reactor: IReactor, ended: Callable[[], object], shared: Shared = ALONE
) -> Listeners | StdioListener:
    """Where to listen: standard input, or as ``make_ports``.

    :param ended: called when standard input is closed.
    """
    if settings.stdio:
        return StdioListener(reactor, site, take_standard_output(), ended)
    sources = shared.sources or find_sources(settings)
    return make_ports(settings, site, reactor, sources, shared.sharing)


def find_sources(settings: Settings) -> Sequence[Source]:
    """Where to listen: what the service manager passed, or else what the settings say. Called once."""
    return take_inherited_sockets() or [parse_address(text) for text in settings.addr]


def make_ports(
    settings: Settings, site: IProtocolFactory, reactor: IReactor, sources: Sequence[Source], sharing: Sharing | None
) -> Listeners:
    """The listeners of ``sources``."""
    # The first that a client knows too is taken. HTTP/1.1 is the faster one (docs/design.md, HTTP/2).
    protocols = {"off": (b"http/1.1",), "on": (b"http/1.1", b"h2"), "prefer": (b"h2", b"http/1.1")}[settings.http2]
    tls = configure_tls(settings.cert, settings.key, settings.client_ca, settings.min_tls_version, protocols)
    group = settings.unix_socket_group
    return Listeners(
        reactor,
        sources,
        site,
        tls,
        unix_mode=parse_mode(settings.unix_socket_mode),
        unix_group=None if group is None else parse_group(group),
        sharing=sharing,
        without=settings.without,
    )
