"""``centra select``."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import click

from cli.context import json_option
from cli.output import account_line, print_json, print_table, remark


@click.command()
@click.option(
    "--scores",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FILE.csv",
    help="Columns task, frozen_layers, task_layers, role (teacher or student), score.",
)
@click.option(
    "--threshold",
    required=True,
    metavar="GAIN",
    help="What a layer must gain to be worth it, in the unit of the scores.",
)
@json_option("registry.documents.training:Selection")
def select(*, scores: Path, threshold: str, as_json: bool) -> None:
    """Choose each task's module from measured scores.

    From the shallowest module of a task on, a deeper one is taken where every layer that it adds
    gains at least the threshold. Prints the choice and how many layers a release of it computes.
    """
    from centra.training.select import parse_threshold, read_scores
    from centra.training.select import select as choose

    selection = choose(read_scores(scores), parse_threshold(threshold))
    frozen = {choice.task: choice.frozen_layers for choice in selection.choices}
    for task, count in Counter(row.task for row in selection.left_out).items():
        remark(
            f"{task}: students of other teachers left out: {count}; "
            f"the best teacher keeps {frozen[task]} layers frozen"
        )
    if as_json:
        from registry.documents.training import Selection

        print_json(Selection.of(selection))
        return
    rows = [vars(choice) for choice in selection.choices]
    headers = [name.replace("_", " ") for name in rows[0]]
    print_table(headers, [[*row.values()] for row in rows])
    click.echo(account_line(selection.layers))
