"""What whoever deployed an application is told of it."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from cli.log import _ALWAYS_TOLD, configure_logging

ray = pytest.importorskip("ray")

if TYPE_CHECKING:
    from collections.abc import Callable

    from centra.serving.ray.standing import Standing


@pytest.fixture
def applications(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What Ray Serve says: one application, whose only replica runs."""
    deployment = SimpleNamespace(replica_states={"RUNNING": 1}, message="")
    status = SimpleNamespace(value="RUNNING")
    found = {
        "centra": SimpleNamespace(status=status, deployments={"centra": deployment}, message="")
    }
    monkeypatch.setattr("ray.serve.status", lambda: SimpleNamespace(applications=found))
    return found


@pytest.fixture
def standing() -> Standing:
    from centra.serving.ray.standing import Standing

    return Standing("centra")


def test_an_application_that_somebody_takes_down_is_missed_once(
    applications: dict[str, Any], standing: Standing, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    standing.look()
    applications.clear()
    standing.look()
    standing.look()
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("INFO", "application centra: running, replicas: 1 running"),
        (
            "ERROR",
            "application centra: it is not in the cluster any more: somebody has taken it down",
        ),
    ]


def test_the_command_says_it_without_being_asked_for_more(
    applications: dict[str, Any],
    standing: Standing,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cli.log._PACKAGES", ("centra.serving.ray",))
    loggers = [logging.getLogger("centra.serving.ray"), *map(logging.getLogger, _ALWAYS_TOLD)]
    before = [(logger, logger.level, logger.handlers) for logger in loggers]
    try:
        configure_logging(0, "json", ())
        standing.look()
    finally:
        for logger, level, handlers in before:
            logger.setLevel(level)
            logger.handlers = handlers
    assert "application centra: running, replicas: 1 running" in capsys.readouterr().err
    assert applications


def test_one_that_is_not_there_yet_is_not_missed(
    applications: dict[str, Any], standing: Standing, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    applications.clear()
    standing.look()
    assert caplog.records == []


@pytest.mark.parametrize(
    "failure",
    [
        ValueError("there is no such actor"),
        ConnectionError("the head node is away"),
        ray.exceptions.RaySystemError("the same"),
    ],
)
def test_a_coordinator_that_is_not_there_is_neither_made_nor_an_end(
    applications: dict[str, Any],
    standing: Standing,
    failure: Exception,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(*_: object, **__: object) -> NoReturn:
        raise failure

    asked: Callable[..., object] = fails
    monkeypatch.setattr("ray.get_actor", asked)
    monkeypatch.setattr("ray.remote", lambda *_: pytest.fail("an actor is made"))
    standing.look_closely()
    assert applications
