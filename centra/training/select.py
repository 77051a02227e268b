"""Choosing one module per task from measured scores (paper section 4.2, the "mixed" setting).

Each task has a teacher and students that keep the same layers frozen, with fewer layers of their
own. Starting from the shallowest, a deeper module is taken where each layer that it adds gains at
least a threshold. Pure: a CSV file and a number in, plain values out; decimals stay decimals, so
that a gain of exactly the threshold counts.
"""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass
from decimal import Decimal, localcontext
from typing import TYPE_CHECKING, Literal

from centra.errors import DataError, UsageError
from centra.formats.manifest import LayerAccount
from centra.system.files import read_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["Choice", "Score", "Selection", "parse_threshold", "read_scores", "select"]

_COLUMNS = ("task", "frozen_layers", "task_layers", "role", "score")
# Tables that were averaged or merged write whole numbers as 7.0.
_LAYERS = re.compile(r"([0-9]{1,4})(?:\.0+)?")
_NUMBER = re.compile(r"[+-]?(?:[0-9]{1,30}\.?[0-9]{0,30}|\.[0-9]{1,30})(?:[eE][+-]?[0-9]{1,2})?")
_EXACT = 400
"""Digits that hold any sum and product of what these two patterns let through."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """One row of a file of scores: how well one module did."""

    task: str
    frozen_layers: int | None
    """The paper's x; None for a student that has its teacher's."""
    task_layers: int
    """The paper's y."""
    role: Literal["teacher", "student"]
    score: Decimal
    """Larger is better."""
    where: str
    """File and line, for errors."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The module that a task is served with."""

    task: str
    frozen_layers: int
    task_layers: int
    role: Literal["teacher", "student"]
    score: Decimal


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What was chosen, and what it costs."""

    choices: tuple[Choice, ...]
    """One per task, in the order in which the tasks first appear."""
    left_out: tuple[Score, ...]
    """Students of another teacher than the best one of their task."""
    layers: LayerAccount


def parse_threshold(text: str) -> Decimal:
    """Read a threshold: a gain per layer, in the unit of the scores.

    Raises:
        UsageError: not a finite decimal number, or negative.
    """
    if not _NUMBER.fullmatch(text) or Decimal(text) < 0:
        raise UsageError(
            f"threshold {text!r}: expected a number of at least 0, the gain of each added layer "
            "in the unit of the scores",
            code="bad-threshold",
            threshold=text,
        )
    return Decimal(text)


def read_scores(path: Path) -> list[Score]:
    """Read a CSV file of scores.

    The first line names the columns, in any order: ``task``, ``frozen_layers``, ``task_layers``,
    ``role`` (``teacher`` or ``student``) and ``score``; others are ignored. Several rows of one
    module, of several seeds say, are allowed. A student's ``frozen_layers`` may be empty: its
    teacher's.

    Raises:
        DataError: the file is missing, empty, not UTF-8 or not CSV, or a cell is not as expected;
            file, line and column are named.
    """
    try:
        reader = csv.reader(io.StringIO(read_text(path)), strict=True)
        rows = [(f"{path}:{reader.line_num}", row) for row in reader if row]
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; expected CSV with a line per module") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as UTF-8 text ({error})") from error
    except csv.Error as error:
        raise DataError(f"{path}:{reader.line_num}: not CSV ({error})") from error
    if not rows:
        raise DataError(f"{path}: is empty; expected a first line {','.join(_COLUMNS)}")
    (where, header), *body = rows
    header = [name.strip() for name in header]
    for name in _COLUMNS:
        if header.count(name) != 1:
            found = "missing" if name not in header else f"there {header.count(name)} times"
            raise DataError(
                f"{where}: column {name} is {found}; expected once each of {', '.join(_COLUMNS)}"
            )
    if not body:
        raise DataError(f"{path}: holds no scores below its first line; expected a line per module")
    scores = []
    for where, row in body:
        if len(row) != len(header):
            raise DataError(f"{where}: {len(row)} cells, but the first line has {len(header)}")
        cells = (cell.strip() for cell in row)
        scores.append(_parse(dict(zip(header, cells, strict=True)), where))
    return scores


def select(scores: Sequence[Score], threshold: Decimal) -> Selection:
    """Choose a module for each task (paper section 4.2).

    Candidates are a task's best teacher (at equal scores the one with fewer task layers) and the
    students that keep its frozen layers. The shallowest is taken first. Going deeper, a candidate
    replaces the chosen one where its gain is at least ``threshold`` for each layer that it adds;
    others are passed over, so that a dip does not end the search. Among modules of one depth the
    best score counts; a teacher and a student that are equal in both: the teacher, which needs no
    other module to be made again.

    Args:
        scores: at least one; of several rows of one module the best counts.
        threshold: at least 0, as from :func:`parse_threshold`. At 0 the best score wins, at equal
            scores the deepest module.

    Raises:
        DataError: there is no teacher, teachers differ in the layers that they have in all, a
            student has more layers than that, or a student's frozen layers are not known.
    """
    size = _backbone_layers(scores)
    choices: list[Choice] = []
    left_out: list[Score] = []
    for task in dict.fromkeys(row.task for row in scores):
        rows = [row for row in scores if row.task == task]
        teachers = [row for row in rows if row.role == "teacher"]
        students = [row for row in rows if row.role == "student"]
        if teachers:
            teacher = max(teachers, key=lambda row: (row.score, -row.task_layers))
            frozen = teacher.frozen_layers
            left_out += [row for row in students if row.frozen_layers not in (None, frozen)]
            candidates = [teacher, *(r for r in students if r.frozen_layers in (None, frozen))]
        else:
            frozen = _common_frozen(students)
            candidates = students
        assert frozen is not None
        for row in candidates:
            if frozen + row.task_layers > size:
                raise DataError(
                    f"{row.where}: {frozen} frozen layers and {row.task_layers} task layers; "
                    f"the teachers say that the backbone has {size}"
                )
        chosen = _climb(candidates, threshold)
        choices.append(
            Choice(
                task=task,
                frozen_layers=frozen,
                task_layers=chosen.task_layers,
                role=chosen.role,
                score=chosen.score,
            )
        )
    return Selection(
        choices=tuple(choices), left_out=tuple(left_out), layers=_account(choices, size)
    )


def _parse(cells: dict[str, str], where: str) -> Score:
    if not cells["task"]:
        raise DataError(f"{where}: column task is empty; expected the task's name")
    role = cells["role"]
    if role not in ("teacher", "student"):
        raise DataError(f"{where}: column role: expected teacher or student, found {role!r}")
    of_teacher = role == "student" and not cells["frozen_layers"]
    if not _NUMBER.fullmatch(cells["score"]):
        raise DataError(
            f"{where}: column score: expected a finite decimal number, found {cells['score']!r}"
        )
    return Score(
        task=cells["task"],
        frozen_layers=None if of_teacher else _layers(cells, "frozen_layers", where),
        task_layers=_layers(cells, "task_layers", where),
        role="teacher" if role == "teacher" else "student",
        score=Decimal(cells["score"]),
        where=where,
    )


def _layers(cells: dict[str, str], column: str, where: str) -> int:
    match = _LAYERS.fullmatch(cells[column])
    if match is None:
        raise DataError(
            f"{where}: column {column}: expected a number of layers, 0 or more, "
            f"found {cells[column]!r}"
        )
    return int(match[1])


def _backbone_layers(scores: Sequence[Score]) -> int:
    """N: what every teacher has in all, frozen and its own."""
    teachers = [row for row in scores if row.role == "teacher"]
    if not teachers:
        raise DataError(
            "no teacher among the scores: the number of the backbone's layers is what a teacher "
            "has in all, frozen_layers + task_layers; add the row of one teacher"
        )
    first = teachers[0]
    size = _total(first)
    for row in teachers:
        if _total(row) != size:
            raise DataError(
                f"{row.where}: this teacher has {_total(row)} layers in all, the one at "
                f"{first.where} has {size}; teachers of one backbone agree in that"
            )
    if size == 0:
        raise DataError(f"{first.where}: this teacher has no layers at all")
    return size


def _total(row: Score) -> int:
    return (row.frozen_layers or 0) + row.task_layers


def _common_frozen(students: Sequence[Score]) -> int | None:
    """The frozen layers of the students of a task that has no teacher."""
    first = students[0]
    for row in students:
        if row.frozen_layers is None:
            raise DataError(
                f"{row.where}: column frozen_layers is empty, and task {row.task} has no teacher "
                "to take it from"
            )
        if row.frozen_layers != first.frozen_layers:
            raise DataError(
                f"{row.where}: keeps {row.frozen_layers} layers frozen, {first.where} keeps "
                f"{first.frozen_layers}; task {row.task} has no teacher to tell which counts, so "
                "add the teacher's row or leave one sort out"
            )
    return first.frozen_layers


def _climb(candidates: Sequence[Score], threshold: Decimal) -> Score:
    """The rule itself."""
    with localcontext(prec=_EXACT):
        # The best of each depth comes first; where it is passed over, so are the others.
        chosen, *deeper = sorted(
            candidates, key=lambda row: (row.task_layers, -row.score, row.role == "student")
        )
        for row in deeper:
            added = row.task_layers - chosen.task_layers
            if added and row.score - chosen.score >= threshold * added:
                chosen = row
    return chosen


def _account(choices: Sequence[Choice], size: int) -> LayerAccount:
    return LayerAccount.of(
        shared=max(choice.frozen_layers for choice in choices),
        task=sum(choice.task_layers for choice in choices),
        single_task=len(choices) * size,
    )
