"""``centra completion``, and what a shell completes arguments and options with.

A shell asks the program itself for each word. Nothing heavy is imported for commands and options, and for names only
what listing them takes.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    add_completion_class,
    get_completion_class,
    split_arg_string,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from registry import Registry

    Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem[Any]]]

__all__ = [
    "complete_backbone",
    "complete_backbone_or_path",
    "complete_channel",
    "complete_path",
    "complete_release",
    "complete_task",
    "complete_version",
    "completion",
]


@click.command()
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script that makes a shell complete commands, options and names.

    Save it where the shell looks for such scripts, and start a new shell:

    \b
    centra completion bash > ~/.local/share/bash-completion/completions/centra
    centra completion zsh > "${fpath[1]}/_centra"
    centra completion fish > ~/.config/fish/completions/centra.fish

    Without the package bash-completion: eval "$(centra completion bash)" in ~/.bashrc.
    """  # noqa: D301 - click's mark of lines that stay as they are
    asked = get_completion_class(shell)
    assert asked is not None
    root = ctx.find_root().command
    click.echo(asked(root, {}, "centra", "_CENTRA_COMPLETE").source(), nl=False)


_APART = ("@", "=")
"""Where bash parts what is one word for us."""


@add_completion_class
class _Bash(BashComplete):
    """Bash's. It takes ``@`` for the start of a word, as between a user and a host, and ``=`` for a word."""

    name = "bash"
    _kept = ""
    """What stands before the word that bash replaces, of the one that is completed."""

    def get_completion_args(self) -> tuple[list[str], str]:
        """The words before the incomplete one, and that one, with what bash takes apart in one piece."""
        cursor = int(os.environ["COMP_CWORD"])
        found = split_arg_string(os.environ["COMP_WORDS"])[: cursor + 1]
        words: list[str] = []
        for word in found:
            if words and (word[:1] in _APART or words[-1][-1:] in _APART):
                words[-1] += word
            else:
                words.append(word)
        incomplete = words.pop() if cursor < len(found) else ""
        if incomplete:
            # Bash's word begins with an "@", but after a "=". Click answers for what follows an option's.
            before = incomplete[: max(incomplete.rfind("@"), incomplete.rfind("=") + 1)]
            self._kept = before.partition("=")[2] if before.startswith("-") else before
        return words[1:], incomplete

    def format_completion(self, item: CompletionItem[Any]) -> str:
        """What takes the place of bash's word."""
        item.value = item.value.removeprefix(self._kept)
        return super().format_completion(item)


def _names(find: Callable[[Registry, str], Iterable[str]]) -> Complete:
    """A completion with those names in a registry that begin so; none where it cannot be read."""

    def complete(
        ctx: click.Context, _param: click.Parameter, incomplete: str
    ) -> list[CompletionItem[Any]]:
        from registry import Registry

        given = ctx.find_root().params
        # Whatever is wrong here, the command itself will say it.
        with suppress(Exception):
            registry = Registry.open(**{k: given.get(k) for k in ("database", "store", "actor")})
            try:
                names = dict.fromkeys(find(registry, incomplete))
            finally:
                registry.engine.dispose()
            return [CompletionItem(name) for name in names if name.startswith(incomplete)]
        return []

    return complete


def _tasks(registry: Registry, _incomplete: str) -> Iterable[str]:
    from registry import tasks

    return (row.name for row in tasks.list(registry))


def _versions(registry: Registry, incomplete: str) -> Iterable[str]:
    """Tasks; where one alone is meant, its versions."""
    from registry import tasks

    name = incomplete.partition("@")[0]
    names = [row.name for row in tasks.list(registry)]
    meant = [n for n in names if n == name or ("@" not in incomplete and n.startswith(name))]
    if len(meant) != 1:
        return names
    return [f"{meant[0]}@{row.version}" for row in tasks.show(registry, meant[0]).versions]


def _releases(registry: Registry, _incomplete: str) -> Iterable[str]:
    from registry import channels, releases

    yield from (row.name for row in channels.list(registry))
    yield from (str(row.number) for row in releases.list(registry, limit=50))


def _channels(registry: Registry, _incomplete: str) -> Iterable[str]:
    from registry import channels

    return (row.name for row in channels.list(registry))


def _backbones(registry: Registry, incomplete: str) -> Iterable[str]:
    from registry import backbones

    rows = backbones.list(registry)
    if "@" not in incomplete:
        yield from (row.name for row in rows)
    yield from (f"{row.name}@{row.version}" for row in rows)


complete_task = _names(_tasks)
"""The name of a task."""
complete_version = _names(_versions)
"""``NAME@VERSION`` of a task."""
complete_release = _names(_releases)
"""What names a release: a channel, or a number."""
complete_channel = _names(_channels)
complete_backbone = _names(_backbones)
"""The name of a backbone, with or without its version."""


def complete_path(
    _ctx: click.Context, _param: click.Parameter, incomplete: str
) -> list[CompletionItem[Any]]:
    """A file or a folder, where something else may stand as well."""
    return [CompletionItem(incomplete, type="file")]


def complete_backbone_or_path(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem[Any]]:
    """The name of a backbone, or a folder."""
    return [*complete_path(ctx, param, incomplete), *complete_backbone(ctx, param, incomplete)]
