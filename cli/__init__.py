"""The command line: options, one call, one print. ``centra NOUN VERB``, a few daily verbs flat."""

from __future__ import annotations

import sys

if sys.argv[:1] == ["-m"]:  # python -m cli: before anything of the working folder is imported.
    import _centra_command  # noqa: F401

import importlib
import os
import re
from typing import Any

import click

from centra.errors import CentraError
from centra.system.redaction import hidden, redacted
from cli.errors import exit_code, message
from cli.log import FORMATS, configure_logging
from cli.streams import protect

__all__ = ["main"]

_COMMANDS = {
    "init": "cli.init:init",
    "db": "cli.db:db",
    "backbone": "cli.backbone:backbone",
    "data": "cli.data:data",
    "train": "cli.train:train",
    "search": "cli.search:search",
    "distill": "cli.distill:distill",
    "select": "cli.select:select",
    "fit": "cli.fit:fit",
    "task": "cli.task:task",
    "compose": "cli.compose:compose",
    "release": "cli.release:release",
    "promote": "cli.promote:promote",
    "rollback": "cli.promote:rollback",
    "channel": "cli.channel:channel",
    "policy": "cli.policy:policy",
    "predict": "cli.predict:predict",
    "serve": "cli.serve:serve",
    "token": "cli.token:token",
    "bench": "cli.bench:bench",
    "export": "cli.transfer:export",
    "import": "cli.transfer:import_command",
    "store": "cli.store:store",
    "audit": "cli.audit:audit",
    "gc": "cli.gc:gc",
    "doctor": "cli.doctor:doctor",
    "demo": "cli.demo:demo",
    "completion": "cli.completion:completion",
}
"""In the order of a task's life. A command's module is imported when it is called, so that no
command waits for another's libraries."""

_ADDRESSES = ("CENTRA_DATABASE_URL", "CENTRA_STORE")
"""The variables that hold addresses."""
_ADDRESS = re.compile(r"[A-Za-z][\w+.-]*:/|:[^/@]*@")


class _Root(click.Group):
    """The root group: finds commands when they are needed, and turns our errors into exit codes."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, _ctx: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        module, _, attribute = _COMMANDS[name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        # An address in the place of a name is quoted as one.
        addresses = [word for word in ctx.args if _ADDRESS.search(word)]
        try:
            return super().invoke(ctx)
        except CentraError as error:
            # rich and tracebacks stay out: this text is the whole message.
            click.echo(f"Error: {hidden(message(error), *addresses)}", err=True)
            ctx.exit(exit_code(error))
        except click.UsageError as error:
            # It quotes what was typed, perhaps an address in the wrong place.
            shown = redacted(error.message)
            if shown == error.message:
                raise
            raise click.UsageError(shown, error.ctx) from None


@click.group(cls=_Root, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--database", metavar="URL", help="Database; default CENTRA_DATABASE_URL.")
@click.option("--store", metavar="URL", help="Blob store; default CENTRA_STORE.")
@click.option("--actor", metavar="TEAM/PERSON", help="Who acts; default CENTRA_ACTOR.")
@click.option(
    "-v",
    "--verbose",
    count=True,
    help="Say on standard error what is done and how long it takes; -vv also says each step.",
)
@click.option(
    "--log-format",
    type=click.Choice(FORMATS),
    default=FORMATS[0],
    show_default=True,
    help="How that is written; json is one object a line.",
)
@click.version_option(package_name="centra")
@click.pass_context
def main(ctx: click.Context, /, *, verbose: int, log_format: str, **settings: str | None) -> None:
    """Centra: a model registry and task lifecycle manager for modular teams.

    Many teams' task modules on one frozen backbone, merged into one release. Settings come from
    these options, then the environment, then centra.toml found upward from here.

    Exit codes: 0 done, 1 failed, 2 usage, 3 not found, 4 not allowed, 5 conflict,
    6 verification failed. Of a command that changes something they tell what became of that,
    whether or not its output could be written.
    """
    ctx.obj = settings
    given = (*settings.values(), *(os.environ.get(name) for name in _ADDRESSES))
    configure_logging(verbose, log_format, [address for address in given if address])


def run() -> None:
    """The ``centra`` program."""
    output = protect()
    if "_CENTRA_COMPLETE" in os.environ:  # A shell asks for the words that can follow.
        import cli.completion  # noqa: F401 - It knows more of bash than click does.
    try:
        main(prog_name="centra")
    except SystemExit as end:
        sys.exit(end.code or output.exit_code())
