"""The resource tree: restic's REST API (``doc/REST_backend.rst`` in restic) as Klein routes.

Each route states what it names and which methods it has; the converters hand the path, still percent-encoded, to
``repository.names.parse``. What the handlers get is a value.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any, Generic, TypeVar

from klein import Klein
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.web.resource import IResource
from werkzeug.exceptions import HTTPException
from werkzeug.routing import BaseConverter, ValidationError

from resticd.errors import BadRequest, ResticdError
from resticd.http.blobs import delete_blob, get_blob, head_blob, post_blob
from resticd.http.errors import answer_error
from resticd.http.listing import get_list
from resticd.http.request import StreamingRequest
from resticd.repository.names import CONFIG, TYPES, Blob, Directory, Repository, parse
from resticd.repository.operations import Repositories

T = TypeVar("T", Repository, Directory, Blob)

_TYPE = "|".join(TYPES)


class _TargetConverter(BaseConverter, Generic[T]):
    """Any number of segments that name one kind of target."""

    part_isolating = False
    kind: type[T]

    def to_python(self, value: str) -> T:
        try:
            target = parse("/" + value)
        except ResticdError:
            raise ValidationError from None
        if not isinstance(target, self.kind):
            raise ValidationError
        return target


class _RepositoryConverter(_TargetConverter[Repository]):
    kind = Repository
    regex = rf"(?!(?:.*/)?(?:{_TYPE}|{CONFIG})(?:/|\Z)).*"


class _DirectoryConverter(_TargetConverter[Directory]):
    kind = Directory
    regex = rf"(?:.*/)?(?:{_TYPE})/?"


class _BlobConverter(_TargetConverter[Blob]):
    kind = Blob
    regex = rf"(?:.*/)?(?:(?:{_TYPE})/[^/]+|{CONFIG})"


Handler = Callable[..., Awaitable[None]]


def _answers(handler: Handler) -> Callable[..., Deferred[None]]:
    """Run a coroutine as a Klein handler; whatever it raises becomes the answer."""

    @wraps(handler)
    def run(api: Api, request: StreamingRequest, **targets: Any) -> Deferred[None]:
        done = Deferred.fromCoroutine(_awaited(handler(api, request, **targets)))
        return done.addErrback(lambda failure: answer_error(request, failure))

    return run


async def _awaited(awaitable: Awaitable[None]) -> None:
    await awaitable


class Api:
    """The routes over ``repositories``."""

    app = Klein()
    app.url_map.converters = {
        **app.url_map.converters,
        "repository": _RepositoryConverter,
        "directory": _DirectoryConverter,
        "blob": _BlobConverter,
    }
    # A path is taken as it is, or refused: no redirect to a tidier one, which restic would follow with a GET.
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False

    def __init__(self, repositories: Repositories) -> None:
        self.repositories = repositories

    def resource(self) -> IResource:
        """The tree as a ``twisted.web`` resource."""
        resource: IResource = self.app.resource()
        return resource

    @app.route("/<repository:repository>", methods=["POST"])
    @_answers
    async def create_repository(self, request: StreamingRequest, repository: Repository) -> None:
        """Create a repository; 200 also where it exists."""
        if request.args.get(b"create") != [b"true"]:
            raise BadRequest("a repository is created with ?create=true")
        await self.repositories.create(request.caller, repository)
        answer_empty(request)

    @app.route("/<repository:repository>", methods=["DELETE"])
    @_answers
    async def delete_repository(self, request: StreamingRequest, repository: Repository) -> None:
        """Delete a repository, where the settings allow it."""
        await self.repositories.remove(request.caller, repository)
        answer_empty(request)

    @app.route("/<directory:directory>", methods=["GET", "HEAD"])
    @_answers
    async def list_directory(self, request: StreamingRequest, directory: Directory) -> None:
        """List all files of one type."""
        await get_list(self.repositories, request, directory)

    @app.route("/<blob:blob>", methods=["HEAD"])
    @_answers
    async def head(self, request: StreamingRequest, blob: Blob) -> None:
        """Tell a file's size."""
        await head_blob(self.repositories, request, blob)

    @app.route("/<blob:blob>", methods=["GET"])
    @_answers
    async def get(self, request: StreamingRequest, blob: Blob) -> None:
        """Send a file, or a range of it."""
        await get_blob(self.repositories, request, blob)

    @app.route("/<blob:blob>", methods=["POST"])
    @_answers
    async def post(self, request: StreamingRequest, blob: Blob) -> None:
        """Store a file."""
        await post_blob(self.repositories, request, blob)
        answer_empty(request)

    @app.route("/<blob:blob>", methods=["DELETE"])
    @_answers
    async def delete(self, request: StreamingRequest, blob: Blob) -> None:
        """Delete a file; 200 also where it is missing."""
        await delete_blob(self.repositories, request, blob)
        answer_empty(request)

    @app.handle_errors(HTTPException)  # type: ignore[arg-type]  # Klein means methods with any request
    def refuse(self, request: StreamingRequest, failure: Failure) -> None:
        """No route for this path and method: 405, or what the grammar says of the path."""
        answer_error(request, _explained(request, failure))


def answer_empty(request: StreamingRequest) -> None:
    """Finish ``request`` with 200 and nothing else; restic takes no other status for success."""
    request.setHeader(b"content-length", b"0")
    request.finish()


def _explained(request: StreamingRequest, failure: Failure) -> Failure:
    """A refusal by the router, or the grammar's own error where the path is at fault."""
    try:
        parse(request.path.decode("ascii", "surrogateescape"))
    except ResticdError:
        return Failure()
    return failure
