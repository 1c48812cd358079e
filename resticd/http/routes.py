"""The resource tree: restic's REST API (``doc/REST_backend.rst`` in restic) as Klein routes.

Each route states what it names and which methods it has. What the handlers get is ``request.target``, the value that
the gate made of the path; werkzeug, which would drop a slash at the path's beginning, only chooses among the routes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import wraps

from klein import Klein
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.web.resource import IResource
from werkzeug.exceptions import HTTPException, MethodNotAllowed
from werkzeug.routing import BaseConverter

from resticd.errors import BadRequest, NoSuchName
from resticd.http.blobs import answer_empty, delete_blob, get_blob, head_blob, post_blob
from resticd.http.errors import WrongMethod, answer_error
from resticd.http.listing import get_list
from resticd.http.request import StreamingRequest
from resticd.repository.names import CONFIG, TYPES, Blob, Directory, Repository, Target
from resticd.repository.operations import Repositories

_TYPE = "|".join(TYPES)


class _Path(BaseConverter):
    """A whole path of one kind."""

    part_isolating = False


class _RepositoryPath(_Path):
    regex = rf"(?!(?:.*/)?(?:{_TYPE}|{CONFIG})(?:/|\Z)).*"


class _DirectoryPath(_Path):
    regex = rf"(?:.*/)?(?:{_TYPE})/?"


class _BlobPath(_Path):
    regex = rf"(?:.*/)?(?:(?:{_TYPE})/[^/]+|{CONFIG})"


Handler = Callable[..., Awaitable[None]]


def _answers(kind: type[Target]) -> Callable[[Handler], Callable[..., Deferred[None]]]:
    """Make a Klein handler of a coroutine that takes a target of ``kind``; whatever it raises becomes the answer."""

    def decorate(handler: Handler) -> Callable[..., Deferred[None]]:
        async def handle(api: Api, request: StreamingRequest) -> None:
            if not isinstance(request.target, kind):
                raise NoSuchName("no such path")
            await handler(api, request, request.target)

        @wraps(handler)
        def run(api: Api, request: StreamingRequest, path: str) -> Deferred[None]:
            done = Deferred.fromCoroutine(handle(api, request))
            return done.addErrback(lambda failure: answer_error(request, failure))

        return run

    return decorate


class Api:
    """The routes over ``repositories``."""

    app = Klein()
    app.url_map.converters = {
        **app.url_map.converters,
        "repository": _RepositoryPath,
        "directory": _DirectoryPath,
        "blob": _BlobPath,
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

    @app.route("/<repository:path>", methods=["POST"])
    @_answers(Repository)
    async def create_repository(self, request: StreamingRequest, repository: Repository) -> None:
        """Create a repository; 200 also where it exists."""
        if request.args.get(b"create") != [b"true"]:
            raise BadRequest("a repository is created with ?create=true")
        await self.repositories.create(request.caller, repository)
        answer_empty(request)

    @app.route("/<repository:path>", methods=["DELETE"])
    @_answers(Repository)
    async def delete_repository(self, request: StreamingRequest, repository: Repository) -> None:
        """Delete a repository, where the settings allow it."""
        await self.repositories.remove(request.caller, repository)
        answer_empty(request)

    @app.route("/<directory:path>", methods=["GET", "HEAD"])
    @_answers(Directory)
    async def list_directory(self, request: StreamingRequest, directory: Directory) -> None:
        """List all files of one type."""
        await get_list(self.repositories, request, directory)

    @app.route("/<blob:path>", methods=["HEAD"])
    @_answers(Blob)
    async def head(self, request: StreamingRequest, blob: Blob) -> None:
        """Tell a file's size."""
        await head_blob(self.repositories, request, blob)

    @app.route("/<blob:path>", methods=["GET"])
    @_answers(Blob)
    async def get(self, request: StreamingRequest, blob: Blob) -> None:
        """Send a file, or a range of it."""
        await get_blob(self.repositories, request, blob)

    @app.route("/<blob:path>", methods=["POST"])
    @_answers(Blob)
    async def post(self, request: StreamingRequest, blob: Blob) -> None:
        """Store a file."""
        await post_blob(self.repositories, request, blob)

    @app.route("/<blob:path>", methods=["DELETE"])
    @_answers(Blob)
    async def delete(self, request: StreamingRequest, blob: Blob) -> None:
        """Delete a file; 200 also where it is missing."""
        await delete_blob(self.repositories, request, blob)

    @app.handle_errors(HTTPException)  # type: ignore[arg-type]  # Klein means methods with any request
    def refuse(self, request: StreamingRequest, failure: Failure) -> None:
        """No route for this path and method."""
        error = failure.value
        if isinstance(error, MethodNotAllowed):
            answer_error(request, Failure(WrongMethod(error.valid_methods or ())))
        else:
            answer_error(request, Failure(NoSuchName("no such path")))
