"""Asking for one page of a list, until it is a good one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeVar

from resticd.errors import BadGateway

if TYPE_CHECKING:
    from resticd.remotes.s3_api import S3Api
    from resticd.workers import Workers

#: The longest page that is read, in bytes: 1000 keys take some 400 KB.
_LONGEST_PAGE = 64 * 1024 * 1024


class AnyPage(Protocol):
    """What a page is parsed to."""

    @property
    def following(self) -> str | None:
        """Where the next page begins; None behind the last."""


P = TypeVar("P", bound=AnyPage)


async def fetch_page(
    api: S3Api,
    workers: Workers,
    parse: Callable[[bytes, int, str], P],
    prefix: str,
    *,
    following: str | None = None,
    after: str = "",
    delimiter: str = "",
    received: Callable[[], None] | None = None,
) -> P:
    """One page of the list of ``prefix``, parsed in a worker.

    Raises as ``IRemote.list``; ``BadGateway`` where ``parse`` raises ``ValueError`` for whatever comes.

    :param parse: takes the answer, the version of ListObjects and the prefix.
    :param following: where the page before said that this one begins.
    :param after: otherwise the key behind which it begins.
    :param received: called when the answer is here, before it is parsed; again for each repetition.
    """
    options = api.options
    query = [("prefix", prefix), ("max-keys", str(options.list_chunk))]
    if delimiter:
        query.append(("delimiter", delimiter))
    if options.list_url_encode:
        query.append(("encoding-type", "url"))
    if options.list_version == 2:
        query.append(("list-type", "2"))
        if following is not None:
            query.append(("continuation-token", following))
        elif after:
            query.append(("start-after", after))
    elif following is not None or after:
        query.append(("marker", following or after))

    async def attempt(_: int) -> P:
        response = await api.attempt("GET", query=query)
        data = await response.read(_LONGEST_PAGE)
        if received is not None:
            received()
        try:
            page = await workers.run(parse, data, options.list_version, prefix)
            if page.following is not None and page.following == following:
                raise ValueError("it goes on where it began")
        except ValueError as error:
            raise BadGateway(f"s3: a page of the list of {prefix} cannot be used: {error}") from None
        return page

    return await api.client.retries.run(attempt)
