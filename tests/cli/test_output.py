"""Output that cannot be written: no change fails for it, and nothing that is only read succeeds."""

from __future__ import annotations

import io
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import click
import pytest

import cli
from cli.streams import Output
from tests.cli.helpers import centra, demand, nearly_right_rows, process, read, refused, state

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FULL = "standard output cannot be written: No space left on device"
BROKEN = ("full", "reader left", "closed", "latin-1")


@contextmanager
def stream(kind: str) -> Iterator[Any]:
    """A standard output, as a process may be given it."""
    if kind == "closed":
        yield None
    elif kind == "latin-1":
        yield io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    else:
        number = os.open("/dev/full", os.O_WRONLY) if kind == "full" else abandoned()
        with io.FileIO(number, "w") as raw:
            yield SimpleNamespace(buffer=raw, encoding="utf-8", isatty=lambda: False)


def abandoned() -> int:
    """The end of a pipe that nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    return writing


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str]]:
    """A call of the program in this process: its exit code, and what it says on standard error."""

    def run(*args: str | Path, out: Any, err: Any = None) -> tuple[int, str]:
        said = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["centra", *map(str, args)])
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err or said)
            with pytest.raises(SystemExit) as end:
                cli.run()
            sys.stderr.flush()
        assert isinstance(end.value.code, int)
        return end.value.code, said.buffer.getvalue().decode()  # type: ignore[attr-defined]

    return run


# In this order, in the registry of the fixtures; with what each adds to the log, if anything.
CHANGES = [
    ("init", 0),
    ("db upgrade", 0),
    ("task register stars {stars}", 1),
    ("task register stars {stars}", 0),
    ("task update intent {intent update} --json", 1),
    ("task redefine intent {intent redefinition}", 1),
    ("task pin intent@1.1", 1),
    ("task retire stars", 1),
    ("task restore stars --json", 1),
    ("compose --release", 2),
    ("compose --release --json", 0),
    ("compose --output out", 0),
    ("compose --base 1 --remove same --release --output out", 1),
    ("channel move staging 2", 1),
    ("channel sync", 0),
    ("promote 1 --to production", 1),
    ("promote 2 --to production --markdown", 1),
    ("promote 2 --to production", 0),
    ("rollback production", 1),
    ("policy apply --file {rules}", 1),
    ("release evaluate 2 --task intent --data {data}", 1),
    ("task calibrate intent --data {rows}", 1),
    ("task export intent@1.0 --format onnx --output exported", 0),
    ("release pull 1 --output pulled", 0),
    ("predict --release 1 --task intent --input {lines} --output answers", 0),
    ("release graph 1 --output graph.svg", 0),
    ("export tasks.tar --task intent@1.0", 0),
    ("import tasks.tar", 0),
    ("data split {data}/train.jsonl --output parts", 0),
    ("gc --grace 0s --delete", 0),
    ("audit accept", 0),
    ("audit guard --json", 0),
    ("backbone register tiny {encoder}", 0),
    ("backbone restore tiny@1 --json", 0),
    ("store adopt", 0),
    ("store copy copied", 0),
    ("store move moved", 1),
]
ELSEWHERE = {
    "backbone retire": "with backbone restore",
    "release export": "as task export",
    "release sign": "test_signing",
    "train": "below",
    "distill": "as train",
    "search": "as train",
    "fit": "as train",
    "demo": "it is made of the others",
    "serve": "test_serve_command",
    "token add": "serving/test_tokens",
}
READS = [
    "--help",
    "--version",
    "task list",
    "task show intent --json",
    "task show intent@1.0",
    "task diff intent@1.0 intent",
    "task history intent",
    "release list",
    "release show 1",
    "release graph 1",
    "release diff 1 1",
    "release verify 1",
    "channel list",
    "channel show latest",
    "channel history latest",
    "backbone list",
    "backbone show tiny",
    "backbone status",
    "db current",
    "audit",
    "audit verify",
    "policy show",
    "policy history",
    "data check {data}",
    "store show",
    "gc",
    "compose",
    "promote 1 --to production --dry-run --json",
    "predict hi --json",
    "select --scores {scores} --threshold 1",
    "doctor",
    "completion zsh",
]
SILENT = {"db check": "prints nothing", "bench": "as predict; it takes long"}


def commands(group: click.Group, *path: str) -> Iterator[str]:
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        if isinstance(command, click.Group):
            yield from commands(command, *path, name)
        else:
            yield " ".join((*path, name))


def test_every_command_is_here() -> None:
    here = [text for text, _ in CHANGES] + READS + [*ELSEWHERE, *SILENT]
    missing = [name for name in commands(cli.main) if not any(t.startswith(name) for t in here)]
    assert missing == []


@pytest.mark.parametrize("kind", BROKEN)
def test_a_change_is_made_and_ends_with_0_whatever_becomes_of_its_output(
    home: Path,
    modules: dict[str, Path],
    encoder: Path,
    tiny_data: Callable[[str], Path],
    run: Callable[..., tuple[int, str]],
    kind: str,
) -> None:
    names = {"data": tiny_data("single"), "encoder": encoder, **modules}
    names["rules"] = home / "rules.toml"
    names["rules"].write_text("[channels.canary]\n")
    names["rows"] = nearly_right_rows(home / "rows.jsonl")
    names["lines"] = home / "lines.txt"
    names["lines"].write_text("wake me up at seven\n")
    for text, events in CHANGES:
        words = [word.replace("_", " ") for word in _fields(text).split()]
        before = len(read("audit"))
        with stream(kind) as out:
            code, said = run(*(word.format(**names) for word in words), out=out)
        assert (code, text) == (0, text), said
        assert len(read("audit")) == before + events, text
        assert "Traceback" not in said
        lost = kind != "latin-1" and not text.startswith(("init", "db"))
        assert ("done, but not reported: standard output cannot be written" in said) is lost, text
    assert read("channel", "show", "production")["release"] == 1
    assert all(
        (home / name).exists()
        for name in ("out", "pulled", "exported", "answers", "graph.svg", "tasks.tar")
    )


def _fields(text: str) -> str:
    """The fields' names without their spaces, which would part the words."""
    return text.replace("intent update}", "intent_update}").replace("intent red", "intent_red")


@pytest.mark.parametrize("kind", ["full", "reader left", "closed"])
def test_what_is_only_read_fails_where_it_cannot_be_written(
    home: Path,
    tmp_path: Path,
    tiny_data: Callable[[str], Path],
    run: Callable[..., tuple[int, str]],
    kind: str,
) -> None:
    data = tiny_data("single")
    scores = tmp_path / "scores.csv"
    scores.write_text("task,frozen_layers,task_layers,role,score\nintent,1,2,teacher,90\n")
    demand(home, "[channels.canary]\n")
    before = state(home)
    for text in READS:
        with stream(kind) as out:
            code, said = run(*text.format(scores=scores, data=data).split(), out=out)
        *_, last = said.splitlines() or [""]
        if kind == "reader left":
            assert (code, "Error" in said) == (141, False), text
        else:
            reason = FULL if kind == "full" else "standard output cannot be written: Bad file"
            assert (code, last.startswith(f"Error: {reason}")) == (1, True), (text, said)
        assert "Traceback" not in said
    assert state(home) == before


@pytest.mark.parametrize("kind", ["full", "reader left", "closed"])
def test_standard_error_that_cannot_be_written_makes_no_difference(
    home: Path, run: Callable[..., tuple[int, str]], kind: str
) -> None:
    with stream(kind) as err, stream("full") as out:
        for words, expected in (
            # Progress, remarks, and errors are lost; before the change and after it.
            ("compose --release --output out", 0),
            ("promote 1 --to production", 0),
            ("task list", 1),
            ("task show nope", 3),
            ("promote 9 --to production", 3),
            ("task list --nonsense", 2),
        ):
            assert (words, run(*words.split(), out=out, err=err)[0]) == (words, expected)
    assert (home / "out" / "release.json").exists()
    assert read("channel", "show", "production")["release"] == 1


def test_a_refusal_keeps_its_exit_code_where_nothing_can_be_written(
    home: Path, run: Callable[..., tuple[int, str]]
) -> None:
    demand(home, "[channels.production]\nmax_layers = 1\n")
    before = state(home)
    with stream("full") as out:
        code, said = run("promote", "1", "--to", "production", out=out)
    assert (code, "1 of 1 gates failed" in said) == (6, True)
    assert state(home) == before


def test_characters_that_an_encoding_lacks_are_escapes_and_json_stays_json(
    home: Path, run: Callable[..., tuple[int, str]]
) -> None:
    def printed(encoding: str, *args: str) -> str:
        out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        assert run(*args, out=out)[0] == 0
        # click takes ASCII for a mistake, and writes UTF-8.
        written = "utf-8" if encoding == "ascii" else encoding
        return out.buffer.getvalue().decode(written)  # type: ignore[attr-defined]

    assert centra("--actor", "nlu/åda → 🙂", "task", "retire", "intent")
    centra("task", "restore", "intent")
    for encoding in ("latin-1", "cp1252", "gbk", "ascii", "utf-8"):
        events = json.loads(printed(encoding, "audit", "--json"))
        assert [event["created_by"] for event in events].count("nlu/åda → 🙂") == 1
        answer = json.loads(printed(encoding, "predict", "from 🙂 → paris", "--json"))
        assert answer.keys() == {"intent", "slots"}
        shown = printed(encoding, "channel", "move", f"x-{encoding}", "1")
        assert shown.startswith(f"x-{encoding} ")
        assert len(printed(encoding, "audit").splitlines()) == len(events) + 2
    assert printed("utf-8", "channel", "show", "latest").startswith("latest → release 1 ")
    assert printed("latin-1", "channel", "show", "latest").startswith("latest \\u2192 release 1 ")


def test_a_report_that_cannot_be_written_is_refused_before_the_promotion(home: Path) -> None:
    before = state(home)
    words = ("promote", "1", "--to", "production", "--junit")
    for file in ("missing/gates.xml", "/dev/full"):
        refused(*words, file, code=4, says=f"cannot write {file}")
    assert state(home) == before
    assert Path("/dev/full").is_char_device()


def test_a_report_that_fails_after_the_promotion_does_not_make_it_fail(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("xml.etree.ElementTree.ElementTree.write", full)
    result = centra("promote", "1", "--to", "production", "--junit", "gates.xml")
    assert result.stdout == "production → release 1\n"
    assert "the gates are not in a file: cannot write gates.xml: No space left" in result.stderr
    assert not (home / "gates.xml").exists()


def test_a_folder_that_cannot_be_written_leaves_nothing_published(home: Path) -> None:
    (home / "file").touch()
    before = state(home)
    options = ("compose", "--remove", "same", "--release", "--output")
    for folder in ("file", "file/out"):
        centra(*options, folder, code=4 if folder == "file/out" else 6)
    assert state(home) == before


def test_a_module_that_was_trained_is_there_though_nobody_hears_of_it(
    home: Path, tiny_data: Callable[[str], Path], run: Callable[..., tuple[int, str]]
) -> None:
    words = ("train", "--task", "topic", "--backbone", "tiny", "--data", tiny_data("single"))
    options = ("--tap", "2", "--depth", "1", "--epochs", "1", "--feature-cache", "off")
    with stream("full") as out:
        code, said = run(*words, *options, out=out)
    assert (code, "done, but not reported" in said) == (0, True), said
    assert (home / "topic.safetensors").exists()


def test_a_pipe_that_does_not_wait_is_waited_for() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    text = "x" * 300_000 + "\n"
    with ThreadPoolExecutor(1) as pool, os.fdopen(reading) as reader:
        read_all = pool.submit(reader.read)
        with os.fdopen(writing, "w") as file:
            output = Output(file)
            output.write(text)
            assert output.error is None
        assert read_all.result() == text


# As processes


@pytest.mark.parametrize(
    ("redirection", "command", "code", "says"),
    [
        (">/dev/full", "promote 1 --to a", 0, "done, but not reported"),
        (">&-", "promote 1 --to a", 0, "done, but not reported"),
        (">/dev/full", "channel list", 1, f"Error: {FULL}"),
        (">&-", "channel list", 1, "Error: standard output cannot be written: Bad file descriptor"),
        (">&- 2>&- <&-", "promote 1 --to a", 0, ""),
        (">/dev/full 2>/dev/full", "promote 1 --to a", 0, ""),
        (">/dev/full 2>&1", "channel list", 1, ""),
    ],
)
def test_the_interpreter_s_end_does_not_change_the_exit_code(
    home: Path, warm_python: Path, redirection: str, command: str, code: int, says: str
) -> None:
    # What the warm Python hands on are descriptors, and it cannot hand on closed ones.
    python = warm_python if "&-" not in redirection else Path(sys.executable)
    done = _shell(f"{python} -m cli {command} {redirection}")
    assert (done.returncode, says in done.stderr) == (code, True), done.stderr
    assert "Exception" not in done.stderr
    served = [row["channel"] for row in read("channel", "list")]
    assert served == (["a", "latest"] if command.startswith("promote") else ["latest"])


def _shell(line: str) -> Any:
    import subprocess

    from tests import support

    return subprocess.run(
        ["/bin/sh", "-c", line],
        check=False,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(support.ROOT)},
    )


def test_a_terminal_of_another_encoding(home: Path) -> None:
    done = process("channel", "move", "a", "1", PYTHONIOENCODING="latin-1")
    assert (done.returncode, done.stdout) == (0, "a \\u2192 release 1\n")
