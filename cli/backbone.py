"""``centra backbone``."""

from __future__ import annotations

import click

from cli.context import json_option, open_registry
from cli.output import print_json, print_table, remark, reporting


@click.group()
def backbone() -> None:
    """Frozen encoders that tasks share."""


@backbone.command()
@click.argument("name")
@click.argument("source", metavar="FOLDER_OR_HUB_NAME")
@click.option("--revision", help="Branch, tag or commit of a hub name.")
@json_option
def register(name: str, source: str, revision: str | None, *, as_json: bool) -> None:
    """Import a BERT, RoBERTa, XLM-R, DistilBERT or ELECTRA encoder and freeze it.

    Takes its tokenizer and maximum length along. The same weights are registered once.
    """
    from registry import backbones

    with reporting() as progress:
        row, new = backbones.register(
            open_registry(), name, source, revision=revision, progress=progress
        )
    remark("registered" if new else "already registered")
    if as_json:
        print_json({**vars(row), "registered": new})
    else:
        click.echo(row.reference)


@backbone.command("list")
@json_option
def list_command(*, as_json: bool) -> None:
    """List all backbones."""
    from registry import backbones

    rows = backbones.list_all(open_registry())
    if as_json:
        print_json(rows)
    else:
        print_table(
            ("backbone", "family", "layers", "hidden", "max length", "digest", "source"),
            [
                (
                    r.reference,
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
@click.argument("name")
@json_option
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
        print_json({**vars(row), "embeddings": spec.embeddings, "layers": list(spec.layers)})
        return
    click.echo(
        f"{row.reference}  {row.family}, {row.num_layers} layers of {row.hidden_size}, "
        f"up to {row.max_length} tokens\nfrom {row.source}\nsha256:{row.digest}"
    )
    print_table(("part", "sha256"), list(layers.items()))
