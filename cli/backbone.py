"""``centra backbone``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli.completion import complete_backbone, complete_path
from cli.context import json_option, open_registry
from cli.output import print_json, print_table, remark, reporting
from cli.streams import mark_done

if TYPE_CHECKING:
    from registry.backbones import BackboneOutcome


@click.group()
def backbone() -> None:
    """Frozen encoders that tasks share."""


@backbone.command()
@click.argument("name")
@click.argument("source", metavar="FOLDER_OR_HUB_NAME", shell_complete=complete_path)
@click.option("--revision", help="Branch, tag or commit of a hub name.")
@json_option("registry.documents.backbones:BackboneChange")
def register(name: str, source: str, revision: str | None, *, as_json: bool) -> None:
    """Import a pre-trained encoder (BERT, RoBERTa, MPNet …) and freeze it.

    Takes its tokenizer and maximum length along. The same weights are registered once.
    """
    from registry import backbones

    with reporting() as progress:
        outcome = backbones.register(
            open_registry(), name, source, revision=revision, progress=progress
        )
    mark_done()
    row, new = outcome.backbone, outcome.changed
    remark("registered" if new else f"already registered, as {row.reference}")
    if as_json:
        from registry.documents.backbones import BackboneChange

        print_json(BackboneChange.made(outcome))
    else:
        click.echo(row.reference)


@backbone.command("list")
@click.option("--state", type=click.Choice(["active", "retired"]), help="Only in this state.")
@click.option("--family", help="Only of this family: bert, roberta …")
@json_option("registry.documents.backbones:Backbone", "array")
def list_command(*, state: str | None, family: str | None, as_json: bool) -> None:
    """List backbones."""
    from registry import backbones

    rows = backbones.list(open_registry(), state=state, family=family)
    if as_json:
        from registry.documents.backbones import Backbone

        print_json([Backbone.of(row) for row in rows])
    else:
        print_table(
            ("backbone", "state", "family", "layers", "hidden", "max length", "digest", "source"),
            [
                (
                    r.reference,
                    r.state,
                    r.family,
                    r.num_layers,
                    r.hidden_size,
                    r.max_length,
                    r.digest[:12],
                    r.source,
                )
                for r in rows
            ],
        )


@backbone.command()
@click.argument("name", shell_complete=complete_backbone)
@json_option("registry.documents.backbones:BackboneDetail")
def show(name: str, *, as_json: bool) -> None:
    """Show a backbone (NAME or NAME@VERSION) with one digest per layer."""
    from registry import backbones

    registry = open_registry()
    row = backbones.show(registry, name)
    spec = backbones.spec(registry, row.reference)
    layers = {"embeddings": spec.embeddings} | {
        f"layer {number}": digest for number, digest in enumerate(spec.layers, 1)
    }
    if as_json:
        from registry.documents.backbones import BackboneDetail

        print_json(BackboneDetail.with_layers(row, spec))
        return
    click.echo(
        f"{row.reference}  {row.family}, {row.num_layers} layers of {row.hidden_size}, "
        f"up to {row.max_length} tokens\nfrom {row.source}\nsha256:{row.digest}"
    )
    print_table(("part", "sha256"), list(layers.items()))


@backbone.command()
@click.argument("name", required=False, shell_complete=complete_backbone)
@json_option("registry.documents.backbones:BackboneUse", "array")
def status(name: str | None, *, as_json: bool) -> None:
    """Show who is on which backbone: how far a migration has come."""
    from registry import backbones

    rows = backbones.status(open_registry(), name)
    if as_json:
        from registry.documents.backbones import BackboneUse

        print_json([BackboneUse.of(row) for row in rows])
        return
    print_table(
        ("backbone", "state", "active tasks", "channels", "releases"),
        [
            (
                r.backbone,
                r.state,
                ", ".join(f"{task}@{version}" for task, version in r.tasks.items()) or "-",
                ", ".join(f"{channel} ({number})" for channel, number in r.channels.items()) or "-",
                r.releases,
            )
            for r in rows
        ],
    )


@backbone.command()
@click.argument("reference", metavar="NAME@VERSION", shell_complete=complete_backbone)
@json_option("registry.documents.backbones:BackboneChange")
def retire(reference: str, *, as_json: bool) -> None:
    """Close a backbone to new modules; refused while something live uses it."""
    from registry import backbones

    outcome = backbones.retire(open_registry(), reference)
    _print_outcome(outcome, "retired", as_json=as_json)


@backbone.command()
@click.argument("reference", metavar="NAME@VERSION", shell_complete=complete_backbone)
@json_option("registry.documents.backbones:BackboneChange")
def restore(reference: str, *, as_json: bool) -> None:
    """Open a retired backbone again."""
    from registry import backbones

    outcome = backbones.restore(open_registry(), reference)
    _print_outcome(outcome, "restored", as_json=as_json)


def _print_outcome(outcome: BackboneOutcome, done: str, *, as_json: bool) -> None:
    mark_done()
    remark(done if outcome.changed else "nothing to do: already so")
    if as_json:
        from registry.documents.backbones import BackboneChange

        print_json(BackboneChange.made(outcome))
    else:
        click.echo(outcome.backbone.reference)
