"""What others wrote into names, labels and messages is shown on a terminal, and never obeyed by it."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from cli.output import json_text, print_table
from cli.streams import Output, printable, unescaped
from tests import support
from tests.cli.helpers import centra, process

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

HOSTILE = {
    "\x1b[2J\x1b]0;title\x07": r"\x1b[2J\x1b]0;title\x07",
    "good\rbad": r"good\rbad".replace(r"\r", r"\x0d"),
    "a\x9b31mb": r"a\x9b31mb",
    "x\x7f\x08": r"x\x7f\x08",
    "\u202egnp.exe": r"\u202egnp.exe",
    "\u2066a\u2069": r"\u2066a\u2069",
    "\0": r"\x00",
}
HONEST = [
    "line\n\ttab",
    "كيف حالك؟",
    "\u200fعربي\u200e",
    "今天天气",
    "e\u0301 नमस्ते",
    "👩\u200d👩\u200d👧 \ufe0f",
    "می\u200cخواهم",
    "— · → − ✓",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_what_a_terminal_would_obey_is_escaped(text: str) -> None:
    assert printable(text) == HOSTILE[text]


@pytest.mark.parametrize("text", HONEST)
def test_what_is_only_shown_stays(text: str) -> None:
    assert printable(text) == text


def output() -> tuple[Output, io.BytesIO]:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="utf-8")
    return Output(stream), raw


def test_a_stream_escapes_all_but_the_way_back_to_a_lines_start() -> None:
    stream, raw = output()

    stream.write("\r 50%")
    stream.write("\rx\x1b[1A\r\n")
    print("\x1b[31m", file=stream)
    unescaped(stream).write("\x1b[0m")
    stream.flush()

    assert raw.getvalue() == b"\r 50%\rx\\x1b[1A\\x0d\n\\x1b[31m\n\x1b[0m"
    assert unescaped(sys.__stdout__) is sys.__stdout__


def test_json_keeps_what_it_says() -> None:
    stream, raw = output()
    value = {text: list(HONEST) for text in HOSTILE}

    stream.write(json_text(value, indent=2))
    stream.flush()

    assert json.loads(raw.getvalue()) == value
    assert not any(
        character in raw.getvalue().decode() for character in "\x1b\x9b\x7f\u202e\u2066\r"
    )


def test_columns_are_as_wide_as_what_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("a", "b"), [("\x1b[1m", "one"), ("long enough", "two")])

    first, second, third = capsys.readouterr().out.splitlines()
    assert first.index("B") == second.index("one") == third.index("two")


@pytest.fixture
def hostile(
    home: Path, make_module: Callable[..., Any], tiny_backbone: support.Backbone
) -> dict[str, str]:
    """A registry with a task whose labels and metrics are to be obeyed by terminals."""
    labels = ("\x1b[2Jalarm", "mu\u202esic", "wea\rther")
    module = support.make_module(
        "classification",
        tiny_backbone.spec,
        tiny_backbone.store,
        labels=labels,
        metrics={"\x1b]0;pwned\x07": 0.5},
        training={"note": "\x1b[31mred"},
    )
    module.write(home / "hostile.safetensors")
    centra("task", "register", "evil", home / "hostile.safetensors", "--team", "nlu")
    return dict.fromkeys(labels, "")


@pytest.mark.parametrize(
    "command",
    [
        "task show evil",
        "task list",
        "task card evil",
        "predict --release ./out hello",
        "audit",
        "audit --actor \x1b[31mx",
        "task show \x1b[31m",
        "nothing \x1b[31m",
        "--actor \x1b[31m/x audit",
    ],
)
def test_no_command_lets_a_terminal_be_steered(
    command: str, hostile: dict[str, str], home: Path
) -> None:
    if "./out" in command:
        centra("compose", "--base", "latest", "--set", "evil@1.0", "--output", home / "out")

    done = process(*command.split(), CENTRA_ACTOR="nlu/ada")

    for text in (done.stdout, done.stderr):
        assert "Traceback" not in text
        assert not any(character in text for character in "\x1b\x07\r\u202e"), text
    assert done.stdout or done.stderr


def test_the_texts_of_a_bar_are_neither_obeyed_nor_read_as_markup(tmp_path: Path) -> None:
    code = (
        "from cli.streams import protect; protect()\n"
        "from cli.output import remark, reporting\n"
        "with reporting() as progress:\n"
        "    progress('read \\x1b]0;x\\x07[/b]\\u202e', 1, 2)\n"
        "    remark('said \\x1b]0;y\\x07')\n"
        "    progress('read \\x1b]0;x\\x07[/b]\\u202e', 2, 2)\n"
    )
    master, slave = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-c", code],
        stderr=slave,
        cwd=support.ROOT,
        check=False,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "200"},
    )
    os.close(slave)
    shown = b""
    while True:
        try:
            part = os.read(master, 65536)
        except OSError:
            break
        if not part:
            break
        shown += part
    os.close(master)

    assert done.returncode == 0, shown
    assert rb"\x1b]0;x\x07[/b]\u202e" in shown
    assert rb"said \x1b]0;y\x07" in shown
    assert b"\x1b]0;" not in shown
