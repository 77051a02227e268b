"""Completion as shells do it: commands, options, and the names that a registry holds."""

from __future__ import annotations

import os
import pty
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import get_completion_class

import cli
import cli.completion  # what makes bash's class ours
from tests.cli.helpers import centra, commands

PROGRAMS = Path(sys.executable).parent
ENVIRONMENT = {"TERM": "dumb", "PS1": "", "PROMPT": ""}


def needs(shell: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(shell) is None, reason=f"needs {shell}")


def environment() -> dict[str, str]:
    return {
        **os.environ,
        **ENVIRONMENT,
        "PATH": f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def asked_for(words: list[str], cursor: int | None = None) -> list[str]:
    """What bash's script is answered; the last word is the incomplete one."""
    bash = get_completion_class("bash")
    assert bash is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COMP_WORDS", "\n".join(["centra", *words]))
        patch.setenv("COMP_CWORD", str(len(words) if cursor is None else cursor))
        answer = bash(cli.main, {}, "centra", "_CENTRA_COMPLETE").complete()
    return [line.removeprefix("plain,") for line in answer.splitlines()]


class Terminal:
    """An interactive shell in a terminal of its own."""

    def __init__(self, *command: str) -> None:
        self.shown = ""
        self._process, self._terminal = pty.fork()
        if self._process == 0:
            os.execvpe(command[0], command, environment())

    def type(self, keys: str) -> None:
        os.write(self._terminal, keys.encode())

    def read_until(self, pattern: str) -> str:
        """Read what it shows until it shows this."""
        while not (found := re.search(pattern, self.shown)):
            self.shown += os.read(self._terminal, 4096).decode()
        self.shown = self.shown[found.end() :]
        return found[0]

    def close(self) -> None:
        os.close(self._terminal)
        os.waitpid(self._process, 0)


@needs("bash")
def test_bash_completes_commands_and_names_and_versions(home: Path) -> None:
    (home / "data").mkdir()
    shell = Terminal("bash", "--norc", "--noprofile", "-i")
    try:
        shell.type('eval "$(centra completion bash)" && echo rea""dy\n')
        shell.read_until("ready")
        shell.type("centra pol\t")
        shell.read_until("centra policy ")
        shell.type("\x15centra task show int\t")
        shell.read_until(r"centra task show intent@1\.0 ")
        shell.type("\x15centra task diff intent@1\t")
        shell.read_until(r"centra task diff intent@1\.0 ")
        shell.type("\x15centra promote --to=la\t")
        shell.read_until("centra promote --to=latest ")
        shell.type("\x15centra train --data d\t")
        shell.read_until("centra train --data data/")
        shell.type("\x15centra compose --data intent=d\t")
        shell.read_until("centra compose --data intent=data/")
    finally:
        shell.close()


@needs("zsh")
def test_zsh_completes_commands_and_names_and_versions(home: Path) -> None:
    shell = Terminal("zsh", "-f", "-i")
    try:
        setup = "unsetopt zle_bracketed_paste prompt_sp; autoload -U compinit; compinit -u -D"
        shell.type(f'{setup}; eval "$(centra completion zsh)"; echo rea""dy\n')
        shell.read_until("ready\r?\n")
        shell.type("centra pol\t")
        shell.read_until("cy ")
        shell.type("\x15centra task show int\t")
        shell.read_until(r"ent@1\.0 ")
        shell.type("\x15centra promote --to la\t")
        shell.read_until("test ")
    finally:
        shell.close()


@needs("fish")
def test_fish_completes_commands_and_names_and_versions(home: Path, tmp_path: Path) -> None:
    lines = [
        "centra completion fish | source",
        *(
            f"complete --do-complete 'centra {line}'"
            for line in ("pol", "task show int", "task show intent@", "promote --to la")
        ),
    ]
    done = subprocess.run(
        ["fish", "--no-config", "-c", "\n".join(lines)],
        env={**environment(), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    shown = [line.partition("\t")[0] for line in done.stdout.splitlines()]
    assert (shown, done.stderr) == (["policy", "intent@1.0", "intent@1.0", "latest"], "")


def test_each_shell_has_a_script_that_asks_this_program() -> None:
    for shell in ("bash", "zsh", "fish"):
        script = centra("completion", shell).stdout
        assert f"_CENTRA_COMPLETE={shell}_complete" in script


@pytest.mark.parametrize(
    ("words", "cursor", "expected"),
    [
        (["task", "retire", "s"], None, {"slots", "same"}),
        (["task", "show", "s"], None, {"slots", "same"}),
        (["task", "show", "sl"], None, {"slots@1.0"}),
        (["release", "show"], 3, {"latest", "1"}),
        (["backbone", "status", "t"], None, {"tiny", "tiny@1"}),
        (["compose", "--set", "intent", "@"], None, {"@1.0"}),
        (["compose", "--set", "intent", "@", "1"], None, {"@1.0"}),
        (["compose", "--set", "intent", "@", "1.0"], 6, set()),
        (["compose", "--set", "=", "intent", "@1"], None, {"@1.0"}),
        (["promote", "--to", "=", "la"], None, {"latest"}),
        (["promote", "--to", "="], None, {"latest"}),
        (["compose", "--data", "intent", "=", "da"], None, {"file,da"}),
        (["train", "--data", "da"], None, {"file,da"}),
        (["data", "check", "--backbone", "ti"], None, {"file,ti", "tiny", "tiny@1"}),
        (["task", "export", "sl"], None, {"slots@1.0"}),
        (["release", "export", "la"], None, {"latest"}),
        (["task", "calibrate", "sl"], None, {"slots"}),
    ],
)
def test_names_come_from_the_registry(
    home: Path, words: list[str], cursor: int | None, expected: set[str]
) -> None:
    assert {*asked_for(words, cursor)} == expected


def test_all_that_names_something_of_the_registry_is_completed() -> None:
    named = re.compile(r"(RELEASE|CHANNEL|NAME\[?@VERSION)\b")
    given = ("--task", "--backbone", "--channel", "--data", "data")
    forgotten = {
        (context.command_path, parameter.opts[0])
        for context in commands()
        for parameter in context.command.params
        if parameter.opts[0] in given or named.search(parameter.metavar or "")
        if parameter._custom_shell_complete is None and "=RELEASE" not in (parameter.metavar or "")
    }
    assert forgotten == set()


def test_where_no_registry_can_be_read_there_are_no_names(tmp_path: Path) -> None:
    assert asked_for(["task", "show", "in"]) == []
    (tmp_path / "work" / "centra.toml").write_text("no toml")
    assert asked_for(["task", "show", "in"]) == []


def test_commands_and_options_need_no_registry() -> None:
    assert asked_for(["ro"]) == ["rollback"]
    assert "--expect-revision" in asked_for(["rollback", "--ex"])
