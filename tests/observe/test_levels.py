from __future__ import annotations

import pytest
from twisted.internet.error import ConnectionLost
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from resticd.errors import BadGateway, BadRequest, ConfigurationError
from resticd.observe.levels import Level, level_of, parse_level, twisted_level


def events_of(call: object, namespace: str = "resticd.http") -> list[dict]:
    """What a logger makes of one call."""
    seen: list[dict] = []
    call(Logger(namespace=namespace, observer=seen.append))
    return seen


@pytest.mark.parametrize(
    ("name", "level"),
    [
        ("debug", Level.DEBUG),
        ("info", Level.INFO),
        ("warn", Level.NOTICE),
        ("error", Level.ERROR),
        ("critical", Level.CRITICAL),
    ],
)
def test_each_method_of_a_logger_has_its_level(name: str, level: Level) -> None:
    (event,) = events_of(lambda log: getattr(log, name)("x"))
    assert level_of(event) is level
    assert twisted_level(level) is LogLevel.levelWithName(name)


@pytest.mark.parametrize("namespace", ["twisted.web.http.HTTPChannel", "log_legacy", "residual", "resticdx.y"])
def test_what_others_call_information_is_debugging(namespace: str) -> None:
    (event,) = events_of(lambda log: log.info("Timing out client"), namespace)
    assert level_of(event) is Level.DEBUG
    (event,) = events_of(lambda log: log.error("broken"), namespace)
    assert level_of(event) is Level.ERROR


@pytest.mark.parametrize("error", [BadRequest("x"), ConnectionLost()])
def test_what_a_client_can_cause_is_debugging(error: Exception) -> None:
    (event,) = events_of(lambda log: log.failure("x", Failure(error)))
    assert level_of(event) is Level.DEBUG


def test_what_a_remote_causes_keeps_its_level() -> None:
    (event,) = events_of(lambda log: log.failure("x", Failure(BadGateway("x")), level=LogLevel.error))
    assert level_of(event) is Level.ERROR


def test_an_event_without_level_is_read_too() -> None:
    assert level_of({"log_namespace": "resticd"}) is Level.INFO
    assert level_of({}) is Level.DEBUG


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("DEBUG", Level.DEBUG),
        ("notice", Level.NOTICE),
        ("WARNING", Level.NOTICE),
        ("Emergency", Level.CRITICAL),
        ("off", Level.OFF),
    ],
)
def test_rclone_names_are_understood_in_any_case(text: str, level: Level) -> None:
    assert parse_level("log-level", text) is level


def test_another_name_is_refused_with_its_flag() -> None:
    with pytest.raises(ConfigurationError, match=r"--stats-log-level: .*: LOUD"):
        parse_level("stats-log-level", "LOUD")


def test_off_lets_nothing_through() -> None:
    assert all(level > Level.OFF for level in Level if level is not Level.OFF)
