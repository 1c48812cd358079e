"""Whose requests they are: given keys, or whatever Amazon's chain of sources finds.

The chain is botocore's: environment, web identity, profiles and processes, containers, instance metadata. Its calls
block, so they run in workers; what expires is fetched anew while the old keys still work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from resticd.errors import ConfigurationError, StorageError
from resticd.transport.errors import Refused

if TYPE_CHECKING:
    from resticd.remotes.s3_options import S3Options
    from resticd.workers import Workers

#: Keys that expire within this many seconds are fetched anew in the background, and within the second, at once.
REFRESH_SOON, REFRESH_NOW = 15 * 60, 60

_log = Logger(namespace="resticd.remotes.s3")


class Keys(NamedTuple):
    """What signs a request; the names are those that botocore's signers read."""

    access_key: str
    secret_key: str
    token: str | None = None

    def __repr__(self) -> str:
        return "<Keys>"


class Credentials:
    """Gives the keys that are valid now.

    Raises ``ConfigurationError`` where only one half of a pair of keys is given.
    """

    def __init__(self, options: S3Options, workers: Workers) -> None:
        self._options = options
        self._workers = workers
        self._given = _given(options)
        self._searches = (options.env_auth and self._given is None) or bool(options.role_arn)
        self._source: Any = None
        self._fetching: Deferred[Any] | None = None
        self._waiting: list[Deferred[Keys | None]] = []
        self._keys: Keys | None = None

    @property
    def renewable(self) -> bool:
        """Whether asking again may give other keys."""
        return self._searches

    def get(self) -> Deferred[Keys | None]:
        """Fires with keys, or None for anonymous access. Fails with a ``StorageError`` where none are found."""
        if not self._searches:
            return succeed(self._given)
        if self._keys is not None and not self._expires_within(REFRESH_NOW):
            if self._expires_within(REFRESH_SOON):
                self._fetch()
            return succeed(self._keys)
        waiting: Deferred[Keys | None] = Deferred(self._waiting.remove)
        self._waiting.append(waiting)
        self._fetch()
        return waiting

    def forget(self) -> None:
        """The keys were refused as expired: look for others."""
        self._keys = None
        self._source = None

    def _expires_within(self, seconds: float) -> bool:
        needed = getattr(self._source, "refresh_needed", None)
        return needed is not None and bool(needed(refresh_in=seconds))

    def _fetch(self) -> None:
        if self._fetching is None:
            fetching = self._workers.run(self._find, self._source)
            self._fetching = fetching
            fetching.addCallbacks(self._found, self._missed)

    def _find(self, source: Any) -> tuple[Any, Keys]:
        """In a worker: the source, new or refreshed, and its keys."""
        if source is None:
            source = _search(self._options, self._given)
        frozen = source.get_frozen_credentials()
        return source, Keys(frozen.access_key, frozen.secret_key, frozen.token)

    def _found(self, result: tuple[Any, Keys]) -> None:
        self._fetching = None
        self._source, self._keys = result
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(self._keys)

    def _missed(self, failure: Failure) -> None:
        self._fetching = None
        error = failure.value
        if not isinstance(error, StorageError):
            # botocore's messages may quote what a source answered
            error = StorageError(f"s3: cannot get credentials: {type(error).__name__}")
        _log.warn("{reason}", reason=str(error))
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.errback(Failure(error))


def _given(options: S3Options) -> Keys | None:
    key, secret = options.access_key_id, options.secret_access_key
    if key and not secret:
        raise ConfigurationError("s3: secret_access_key is missing")
    if secret and not key:
        raise ConfigurationError("s3: access_key_id is missing")
    return Keys(key, secret, options.session_token or None) if key else None


def _search(options: S3Options, given: Keys | None) -> Any:
    """The source of keys, as botocore finds it. Blocks. Raises ``Refused`` where there is none."""
    import botocore.session
    from botocore.credentials import AssumeRoleCredentialFetcher, Credentials, DeferredRefreshableCredentials

    session = botocore.session.Session(profile=options.profile or None)
    if options.shared_credentials_file:
        session.set_config_variable("credentials_file", options.shared_credentials_file)
    base = Credentials(*given) if given is not None else session.get_credentials()
    if base is None:
        raise Refused("s3: no credentials found in the environment, the profiles or the instance's metadata")
    if not options.role_arn:
        return base
    wanted = {
        "RoleSessionName": options.role_session_name or "resticd",
        "DurationSeconds": int(options.role_session_duration) if options.role_session_duration else None,
        "ExternalId": options.role_external_id or None,
    }

    def sts(service: str, **arguments: Any) -> Any:
        place = {"endpoint_url": options.sts_endpoint} if options.sts_endpoint else {}
        return session.create_client(service, region_name=options.region, **place, **arguments)

    fetcher = AssumeRoleCredentialFetcher(
        client_creator=sts,
        source_credentials=base,
        role_arn=options.role_arn,
        extra_args={name: value for name, value in wanted.items() if value is not None},
    )
    return DeferredRefreshableCredentials(method="assume-role", refresh_using=fetcher.fetch_credentials)
