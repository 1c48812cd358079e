"""What a remote's name means: the type, the options and the place, with each option from whoever has the last word.

As in rclone (``fs/configmap.go``, ``fs/config/flags/flags.go``) an option is taken from the first of these:

1. the remote's name: ``remote,option=value:path``,
2. a flag: ``--type-option``,
3. ``RCLONE_TYPE_OPTION`` in the environment, unless it says the default,
4. ``RCLONE_CONFIG_REMOTE_OPTION`` in the environment,
5. ``RCLONE_TYPE_OPTION`` that says the default,
6. the section in the remotes file, unless it is empty there.

Remotes of the types ``alias`` and ``combine`` are resolved here. Unlike rclone, a plain path and a remote described
on the fly take nothing from sections named ``local`` and ``:type``, so that they need no remotes file.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from typing import NamedTuple

import attrs

from resticd.config.connection import Connection, join_connection, parse_connection
from resticd.config.obscure import reveal
from resticd.config.rcloneconf import RemotesFile
from resticd.config.spacelist import parse_space_list
from resticd.errors import ConfigurationError
from resticd.remotes.registry import Effect, Option, Registry, RemoteSpec, used

#: Keys that every section may have.
_COMMON = frozenset(("type", "description"))


class _Said(NamedTuple):
    """The value of an option, and who said it: the name, a flag, a variable, or a file and line."""

    value: str
    where: str


class Remotes:
    """All remotes that this process can name.

    :param registry: says which options the drivers take.
    :param environ: the environment.
    :param read_file: reads the remotes file; called once, when a section is first asked for. May block.
    :param flags: backend flags by their names without dashes in front, such as ``s3-region``.
    """

    def __init__(
        self,
        registry: Registry,
        environ: Mapping[str, str],
        read_file: Callable[[], RemotesFile],
        flags: Mapping[str, str] | None = None,
    ) -> None:
        self._registry = registry
        self._environ = environ
        self._read_file = read_file
        self._flags = flags or {}

    @cached_property
    def file(self) -> RemotesFile:
        """The remotes file."""
        return self._read_file()

    def resolve(self, text: str) -> RemoteSpec:
        """The remote that ``text`` names.

        Blocks while the remotes file is read. Raises ``ConfigurationError``; neither this nor a warning has a value.
        """
        return self._resolve(text, ())

    def _resolve(self, text: str, trail: tuple[Connection, ...]) -> RemoteSpec:
        """``trail``: the aliases and combinations that led here."""
        connection = parse_connection(text)
        if any(connection.prefix == earlier.prefix for earlier in trail):
            names = " -> ".join(f'"{step.name}"' for step in (*trail, connection))
            raise ConfigurationError(f"remote {_shown(connection)}: it leads back to itself: {names}")
        type, source = self._type(connection)
        if type == "alias":
            return self._alias(connection, source, trail)
        if type == "combine":
            return self._combine(connection, source, trail)
        driver = self._registry.driver(type, source)
        said = self._said(connection, driver.type, driver.options)
        warnings = [*self._missing_colon(connection)]
        if driver.options is None:
            options = {key: value for key, (value, _) in said.items()}
        else:
            type = driver.type
            options = _honoured(connection, type, driver.options, said, warnings)
        name = connection.name or "local"
        return RemoteSpec(type, name, connection.path, options, text, source, tuple(warnings))

    def _alias(self, connection: Connection, source: str, trail: tuple[Connection, ...]) -> RemoteSpec:
        target, warnings = self._only_option(connection, "alias", "remote", source)
        spec = self._resolve(join_connection(target, connection.path), (*trail, connection))
        return attrs.evolve(spec, warnings=(*warnings, *spec.warnings))

    def _combine(self, connection: Connection, source: str, trail: tuple[Connection, ...]) -> RemoteSpec:
        """A path below a directory of a ``combine`` is a place on that directory's remote, and nothing else."""
        value, warnings = self._only_option(connection, "combine", "upstreams", source)
        try:
            upstreams = _upstreams(value)
        except ValueError as error:
            raise ConfigurationError(f"{source}: upstreams: {error}") from None
        trail = (*trail, connection)
        directory, _, rest = join_connection("/", connection.path).lstrip("/").partition("/")
        if not directory:
            specs = {name: self._resolve(target, trail) for name, target in upstreams.items()}
            warnings += [warning for spec in specs.values() for warning in spec.warnings]
            return RemoteSpec(
                "combine",
                connection.name,
                "",
                text=connection.prefix + connection.path,
                source=source,
                warnings=tuple(dict.fromkeys(warnings)),
                upstreams=specs,
            )
        if directory not in upstreams:
            raise ConfigurationError(f'{source}: upstreams: none is called "{directory}"')
        spec = self._resolve(join_connection(upstreams[directory], rest), trail)
        return attrs.evolve(spec, warnings=(*warnings, *spec.warnings))

    def _only_option(self, connection: Connection, type: str, name: str, source: str) -> tuple[str, list[str]]:
        """The value of the one option of a remote that stands for others, and warnings."""
        warnings: list[str] = []
        options = (used(name),)
        honoured = _honoured(connection, type, options, self._said(connection, type, options), warnings)
        value = honoured.get(name, "")
        if not value:
            raise ConfigurationError(f"{source}: {type}: {name} is empty")
        return value, warnings

    def _type(self, connection: Connection) -> tuple[str, str]:
        """The type of a remote, and where it is described."""
        name = connection.name
        if not name:
            return "local", f"path {connection.path}"
        if name.startswith(":"):
            return name[1:], f"remote {_shown(connection)}"
        variable = f"RCLONE_CONFIG_{name.upper()}_TYPE"
        in_file = self.file.options(name).get("type")
        type = connection.parameters.get("type", self._environ.get(variable, in_file))
        described = name in self.file.sections
        if not type:
            if described:
                raise ConfigurationError(f"{self.file.where(name)}: the section has no type")
            raise ConfigurationError(
                f"remote {_shown(connection)}: didn't find section in config file: {self.file}, nor {variable}"
            )
        return type, self.file.where(name) if described else f"remote {_shown(connection)}"

    def _said(self, connection: Connection, type: str, options: tuple[Option, ...] | None) -> dict[str, _Said]:
        """All options by name, each from whoever has the last word.

        With ``options`` None these are the options of the remote alone: what is said for its type, rclone reads itself.
        """
        name, environ = connection.name, self._environ
        said: dict[str, _Said] = {}
        if name and not name.startswith(":"):
            said |= {key: _Said(value, self.file.where(name, key)) for key, value in self.file.options(name).items()}
        of_type = {
            option.name: _Said(environ[variable], variable)
            for option in options or ()
            for variable in _type_variables(type, option)
            if variable in environ
        }
        said |= of_type
        if name:
            known = frozenset(option.name for option in options or ())
            said |= {key: _Said(environ[variable], variable) for key, variable in self._variables_of(name, known)}
        for option in options or ():
            if option.name in of_type and of_type[option.name].value != option.default:
                said[option.name] = of_type[option.name]
            flag = option.flag(type)
            if flag in self._flags:
                said[option.name] = _Said(self._flags[flag], f"--{flag}")
        here = f"remote {_shown(connection)}"
        said |= {key: _Said(value, here) for key, value in connection.parameters.items()}
        return {key: value for key, value in said.items() if key not in _COMMON}

    def _variables_of(self, name: str, known: frozenset[str]) -> Iterator[tuple[str, str]]:
        """Keys and variables of ``RCLONE_CONFIG_NAME_KEY``.

        ``RCLONE_CONFIG_A_B_TYPE`` makes a remote ``a_b``, whose variables are not those of ``a`` as well.
        """
        prefix = f"RCLONE_CONFIG_{name}_".upper()
        mine = [variable for variable in self._environ if variable.startswith(prefix)]
        longer = tuple(variable.removesuffix("TYPE") for variable in mine if variable[len(prefix) :].endswith("_TYPE"))
        for variable in mine:
            key = variable.removeprefix(prefix).lower()
            if key in known or not variable.startswith(longer):
                yield key, variable

    def _missing_colon(self, connection: Connection) -> Iterator[str]:
        """A warning where a plain path is the name of a section."""
        path = connection.path
        if connection.name or "/" in path:
            return
        # A file that cannot be read is none of the path's business.
        with contextlib.suppress(ConfigurationError):
            if path in self.file.sections:
                yield f'"{path}" is a local directory; the remote is "{path}:", and "./{path}" ends this warning'


def _honoured(
    connection: Connection, type: str, options: Iterable[Option], said: Mapping[str, _Said], warnings: list[str]
) -> dict[str, str]:
    """What a driver takes of what was said, in clear. Appends to ``warnings``."""
    known = {option.name: option for option in options}
    honoured: dict[str, str] = {}
    unknown: list[str] = []
    idle: list[str] = []
    for key, (value, where) in said.items():
        option = known.get(key)
        if option is None:
            unknown.append(key)
        elif option.effect is Effect.USED:
            honoured[key] = _clear(option, value, where)
        elif option.is_default(value):
            continue
        elif option.effect is Effect.HARMLESS:
            idle.append(key)
        else:
            raise ConfigurationError(
                f"{where}: {key} would change what is stored or where, and is not supported for the type {type}"
            )
    if unknown:
        warnings.append(f"remote {_shown(connection)}: the type {type} has no option {', '.join(sorted(unknown))}")
    if idle:
        warnings.append(f"remote {_shown(connection)}: without effect here: {', '.join(sorted(idle))}")
    return honoured


def _clear(option: Option, value: str, where: str) -> str:
    try:
        value.encode()
        return reveal(value) if option.obscured and value else value
    except UnicodeEncodeError:
        raise ConfigurationError(f"{where}: {option.name} is not UTF-8") from None
    except ValueError as error:
        raise ConfigurationError(f"{where}: {option.name}: {error}; `resticd obscure` makes one") from None


def _upstreams(value: str) -> dict[str, str]:
    """The remote under each directory, from ``dir=remote:path dir2=remote2:path``. Raises ``ValueError``."""
    upstreams: dict[str, str] = {}
    for number, word in enumerate(parse_space_list(value), 1):
        directory, equals, target = word.partition("=")
        if not equals or not directory or not target:
            raise ValueError(f"number {number} is not directory=remote:path")
        if "/" in directory:
            raise ValueError(f'a directory cannot have a slash: "{directory}"')
        if directory in upstreams:
            raise ValueError(f'two are called "{directory}"')
        upstreams[directory] = target
    return upstreams


def _type_variables(type: str, option: Option) -> Iterator[str]:
    """The variables that set ``option`` for all remotes of a type; the last one counts."""
    if not option.prefixed:
        yield f"RCLONE_{option.name}".upper()
    yield f"RCLONE_{type}_{option.name}".upper()


def _shown(connection: Connection) -> str:
    """The remote without path and options, for messages."""
    if not connection.name:
        return f'"{connection.path}"'
    return f'"{connection.name}{",…" if connection.parameters else ""}:"'
