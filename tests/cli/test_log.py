"""What the library logs, as the installed command shows it."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cli.log import configure_logging
from tests.cli.helpers import centra

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Installed = Callable[..., subprocess.CompletedProcess[str]]

LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (DEBUG|INFO) +[a-z][\w.]+: .+")


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """The loggers as they were: the command sets up those of its process."""
    loggers = [logging.getLogger(name) for name in ("centra", "registry", "centra.releases.find")]
    before = [(logger, logger.level, logger.handlers) for logger in loggers]
    yield
    for logger, level, handlers in before:
        logger.setLevel(level)
        logger.handlers = handlers


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The settings of a registry that is not made yet, in the working folder."""
    for name in ("CENTRA_DATABASE_URL", "CENTRA_STORE", "CENTRA_ACTOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "centra.toml").write_text('database = "r.db"\nstore = "store"\n')
    return tmp_path


@pytest.fixture(scope="module")
def installed(warm_python: Path) -> Installed:
    """A call that runs the installed command in the working folder."""
    command = [warm_python, Path(sys.executable).with_name("centra")]

    def installed(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*command, *words], capture_output=True, text=True, check=True)

    return installed


REMARK = "database is at migration "


def parsed(lines: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines.splitlines() if not line.startswith(REMARK)]


@pytest.mark.usefixtures("registry")
def test_by_default_nothing_is_said_of_what_went_well(installed: Installed) -> None:
    (line,) = installed("db", "upgrade").stderr.splitlines()
    assert line.startswith(REMARK)
    assert installed("audit").stderr == ""


@pytest.mark.usefixtures("registry")
def test_verbose_says_what_was_done_and_in_how_long(installed: Installed) -> None:
    done = installed("-v", "db", "upgrade")
    line, remark = done.stderr.splitlines()
    assert remark.startswith(REMARK)
    assert LINE.fullmatch(line)
    assert re.search(r"registry\.database\.migrations: migrated the database .* in [\d.]+ s$", line)
    assert "Z INFO " in line


@pytest.mark.usefixtures("registry")
def test_twice_verbose_says_each_step(installed: Installed) -> None:
    installed("db", "upgrade")
    lines = installed("-vv", "doctor").stderr.splitlines()
    assert all(LINE.fullmatch(line) for line in lines)
    assert any("registry.doctor.examination: settings: ok in" in line for line in lines)
    assert installed("-v", "audit").stderr == ""


@pytest.mark.usefixtures("registry")
def test_json_lines_hold_time_level_logger_message_and_what_was_measured(
    installed: Installed,
) -> None:
    done = installed("-v", "--log-format", "json", "db", "upgrade")
    (record,) = parsed(done.stderr)
    assert list(record) == [
        *("timestamp", "level", "logger", "message"),
        *("before", "after", "seconds"),
    ]
    assert datetime.fromisoformat(record["timestamp"]).tzinfo is not None
    assert (record["level"], record["logger"]) == ("info", "registry.database.migrations")
    assert (record["before"], type(record["seconds"])) == (None, float)


@pytest.mark.usefixtures("registry")
def test_results_stay_on_standard_output_alone(installed: Installed) -> None:
    installed("db", "upgrade")
    plain = installed("task", "list", "--json")
    logged = installed("-vv", "--log-format", "json", "task", "list", "--json")
    assert logged.stdout == plain.stdout
    assert parsed(logged.stderr)


def test_an_unknown_format_is_refused() -> None:
    result = centra("--log-format", "xml", "task", "list", code=2)
    assert "'text', 'json'" in result.stderr


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize("verbosity", [0, 2])
def test_a_secret_is_hidden_in_whatever_is_logged(
    form: str, verbosity: int, capsys: pytest.CaptureFixture[str]
) -> None:
    address = "postgresql://ada:hunter2@db/centra"
    configure_logging(verbosity, form, [address])
    log = logging.getLogger("registry.test")
    log.warning("connecting to %s", address, extra={"database": address})
    try:
        raise ValueError(address)
    except ValueError:
        log.exception("failed")
    said = capsys.readouterr().err
    assert "hunter2" not in said
    assert "ada:***@db" in said
    assert (said.count("ValueError: postgresql://ada:***@db/centra") == 1) == (
        form == "json" or verbosity > 0
    )


@pytest.mark.parametrize("form", ["text", "json"])
def test_what_a_terminal_would_obey_is_escaped(
    form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging(1, form, [])
    logging.getLogger("centra.test").info("label \x1b[2J", extra={"label": "\x1b[2J"})
    said = capsys.readouterr().err
    assert "\x1b" not in said
    assert "1b[2J" in said


def test_the_library_says_nothing_by_itself() -> None:
    script = (
        "import centra, registry, logging; "
        "logging.getLogger('centra.x').warning('from centra'); "
        "logging.getLogger('registry.x').warning('from registry')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
