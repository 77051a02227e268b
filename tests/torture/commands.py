"""Every command that changes something, as data: a row more is an attack more.

``{given}`` is the folder of :func:`tests.torture.worlds.make_given`. A line that begins with ``!``
is a call of :mod:`tests.torture.starts`, for what no command does.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import click

__all__ = ["BASE", "COMMANDS", "READING", "TRAINING", "Command", "available", "by_name", "path_of"]

Start = Literal["nothing", "unmade", "old", "empty", "base"]

BASE = (
    "backbone register tiny {given}/encoder",
    "task register intent {given}/intent.safetensors",
    "--actor dialog/bob task register slots {given}/slots.safetensors",
    "--actor quality/cy task register same {given}/same.safetensors",
    "compose --release",
    "promote 1 --to production",
    "task update intent {given}/intent-1.safetensors",
    "compose --release",
    "promote 2 --to production",
    "--actor dialog/bob task update slots {given}/slots-1.safetensors",
    "compose --release",
    "--actor dialog/bob promote 3 --to production",
)
"""What is done to a registry before most attacks: three teams' tasks, and three releases that
``production`` has served."""

_BOB = "--actor dialog/bob"
_COMPOSE = "compose --release"
_UPDATED = "task update intent {given}/intent-2.safetensors"


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command that changes something, and from where it starts."""

    name: str
    line: str
    start: Start = "base"
    """An empty folder; settings without tables; tables of the migration before; an empty registry;
    or one after :data:`BASE`."""
    before: tuple[str, ...] = ()
    """What is done first, beyond the start."""
    mends: tuple[str, ...] = ()
    """The checks of ``doctor`` that may find something until it is repeated, beside pointers."""
    safe: bool = True
    """Whether repeating it after it has done everything changes nothing more. A rollback without
    a revision goes on to the release before."""
    waits: bool = False
    """Whether what a killed process had begun is left to it for a while."""
    cheap: bool = False
    """Whether ``make test`` takes a sample of it."""
    same_log: bool = True
    """Whether the log tells the same when it was killed in between."""
    outputs: tuple[str, ...] = field(default=())
    """What it writes beside the registry: files and folders."""
    after: str = ""
    """What people are told to do when it has ended; done before garbage is collected."""


_NO_TABLES = ("database", "migration", "tables", "audit log")

COMMANDS: tuple[Command, ...] = (
    Command(name="init", line="{init}", start="nothing", mends=("settings", *_NO_TABLES)),
    Command(name="db upgrade", line="db upgrade", start="unmade", mends=_NO_TABLES),
    Command(name="db upgrade from old", line="db upgrade", start="old", mends=_NO_TABLES),
    Command(name="backbone register", line="backbone register other {given}/other"),
    Command(
        name="backbone retire",
        line="backbone retire other@1",
        before=("backbone register other {given}/other",),
    ),
    Command(
        name="backbone restore",
        line="backbone restore other@1",
        before=("backbone register other {given}/other", "backbone retire other@1"),
    ),
    Command(
        name="task register",
        line="task register topics {given}/topics.safetensors",
        cheap=True,
    ),
    Command(name="task register checkpoint", line="task register routes {given}/checkpoint"),
    Command(name="task update", line=_UPDATED),
    Command(name="task calibrate", line="task calibrate intent --data {given}/data"),
    Command(name="task redefine", line="task redefine intent {given}/redefined.safetensors"),
    Command(name="task pin", line="task pin intent@1.0"),
    Command(name="task retire", line="task retire intent"),
    Command(name="task restore", line="task restore intent", before=("task retire intent",)),
    Command(name="compose", line="compose --release", before=(_UPDATED,)),
    Command(
        name="compose onto a base",
        line="compose --base production --set intent@1.2 --release",
        before=(_UPDATED,),
    ),
    Command(name="compose to a folder", line="compose --output out", outputs=("out",)),
    Command(
        name="promote",
        line="promote 4 --to production",
        before=(_UPDATED, "compose --release"),
        cheap=True,
    ),
    Command(name="promote to a new channel", line="promote 3 --to staging"),
    Command(
        name="promote with a revision",
        line="promote 4 --to production --expect-revision 3",
        before=(_UPDATED, "compose --release"),
    ),
    Command(
        name="promote rebased",
        line="promote 4 --to production --rebase",
        before=(_UPDATED, "compose --base 2 --set intent@1.2 --release"),
    ),
    Command(
        name="promote over others",
        line="promote 4 --to production --force",
        before=("--actor dialog/bob task update slots {given}/slots-2.safetensors", _COMPOSE),
    ),
    Command(name="rollback", line=f"{_BOB} rollback production", safe=False, cheap=True),
    Command(
        name="rollback with a revision",
        line=f"{_BOB} rollback production --expect-revision 3",
    ),
    Command(name="rollback from a release", line=f"{_BOB} rollback production --from 3"),
    Command(name="rollback to a release", line="rollback production --to 1 --force"),
    Command(name="channel move", line=f"{_BOB} channel move production 2"),
    Command(name="channel move to a new channel", line="channel move staging 2"),
    Command(
        name="channel move with a revision",
        line="channel move production 1 --expect-revision 3 --force",
    ),
    Command(name="channel sync", line="channel sync", before=("!stale production",)),
    Command(name="release sign", line="release sign 3 --key {given}/release.pem"),
    Command(name="release pull", line="release pull 3 --output out", outputs=("out",)),
    Command(
        name="release pull over another",
        line="release pull 3 --output out",
        before=("release pull 1 --output out",),
        outputs=("out",),
    ),
    Command(
        name="release evaluate",
        line="release evaluate 3 --task intent --data {given}/data",
    ),
    Command(
        name="release export",
        line="release export 3 --format onnx --output out",
        outputs=("out",),
    ),
    Command(
        name="task export",
        line="task export intent@1.0 --format hf --output out",
        outputs=("out",),
    ),
    Command(
        name="data split",
        line="data split {given}/data/dev.jsonl --output out",
        outputs=("out",),
    ),
    Command(name="export of a task", line="export out.tar --task intent", outputs=("out.tar",)),
    Command(name="export of a release", line="export out.tar --release 3", outputs=("out.tar",)),
    Command(
        name="import of a task",
        line="import {given}/task.tar",
        start="empty",
        before=("!exports",),
    ),
    Command(
        name="import of a release",
        line="import {given}/release.tar --force",
        start="empty",
        before=("!exports",),
    ),
    Command(
        name="gc",
        line="gc --delete --grace 0s",
        before=("!garbage",),
        cheap=True,
        waits=True,
        same_log=False,
    ),
    Command(name="store copy", line="store copy out", outputs=("out",)),
    Command(
        name="store copy onto an earlier one",
        line="store copy out",
        before=("store copy out", _UPDATED, _COMPOSE),
        outputs=("out",),
    ),
    Command(
        name="store move",
        line="store move out",
        outputs=("out",),
        # Where it has moved already, the settings still name the old store.
        mends=("identity",),
        after="!settle out",
    ),
    Command(
        name="store adopt",
        line="store adopt",
        before=("store copy out", "!settle out"),
        outputs=("out",),
    ),
    Command(name="policy apply", line="policy apply", before=("!policy",)),
    Command(
        name="audit accept",
        line="audit accept",
        before=("!outdated",),
        after="channel sync",
    ),
    Command(name="audit guard", line="audit guard", before=("!unguarded",)),
)

READING = (
    *("db check", "db current", "backbone list", "backbone show", "backbone status"),
    *("task diff", "task history", "task list", "task show", "select", "predict", "bench"),
    *("release diff", "release graph", "release list", "release show", "release verify"),
    *("channel history", "channel list", "channel show", "policy history", "policy show"),
    *("store show", "audit verify", "doctor", "serve", "token add", "data check", "completion"),
)
"""Those that change neither the registry nor its store."""
TRAINING = ("train", "search", "distill", "fit", "demo")
"""Those that write a file of their own beside it, and take minutes."""


def by_name(name: str) -> Command:
    """The command of a name."""
    return next(command for command in COMMANDS if command.name == name)


def available(command: Command) -> bool:
    """Whether the command line has this command with these options."""
    import cli

    words = _words(command)
    with click.Context(cli.main) as context:
        found: click.Command | None = cli.main
        for word in path_of(command).split():
            assert isinstance(found, click.Group)
            found = found.get_command(context, word)
            if found is None:
                return False
    known = {option for parameter in found.params for option in parameter.opts}
    return known >= {word for word in words if word.startswith("--")}


def path_of(command: Command) -> str:
    """Which command of the command line it is: ``task update``."""
    import cli

    found: click.Command | None = cli.main
    path = []
    with click.Context(cli.main) as context:
        for word in _words(command):
            if not isinstance(found, click.Group):
                break
            found = found.get_command(context, word)
            path.append(word)
    return " ".join(path)


def _words(command: Command) -> list[str]:
    words = command.line.replace("{init}", "init").split()
    return words[2:] if words[0] == "--actor" else words
