"""The mixed rule: which module each task is served with, and what a file of scores must be."""

from __future__ import annotations

import csv
import os
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from centra.errors import DataError, UsageError
from centra.formats.manifest import LayerAccount
from centra.training.select import Score, Selection, parse_threshold, read_scores, select
from tests import support

if TYPE_CHECKING:
    from collections.abc import Iterable

PUBLISHED = Path(os.environ.get("CENTRA_PAPER", support.ROOT.parent / "shared" / "paper"))
"""The paper's tables 1, 2 and 5 as CSV."""
HEADER = "task,frozen_layers,task_layers,role,score"


def teacher(task: str, frozen: int, own: int, score: str) -> Score:
    return Score(
        task=task,
        frozen_layers=frozen,
        task_layers=own,
        role="teacher",
        score=Decimal(score),
        where="made up",
    )


def student(task: str, own: int, score: str, frozen: int | None = None) -> Score:
    return Score(
        task=task,
        frozen_layers=frozen,
        task_layers=own,
        role="student",
        score=Decimal(score),
        where="made up",
    )


def picks(selection: Selection) -> dict[str, tuple[int, int]]:
    return {c.task: (c.frozen_layers, c.task_layers) for c in selection.choices}


# The rule


@pytest.mark.parametrize(
    ("threshold", "layers"), [("0", 8), ("0.5", 8), ("1", 3), ("1.5", 2), ("2", 2), ("2.01", 1)]
)
def test_a_deeper_module_is_taken_where_each_added_layer_gains_the_threshold(
    threshold: str, layers: int
) -> None:
    scores = [
        teacher("cola", 4, 8, "87"),
        student("cola", 1, "80"),
        student("cola", 2, "82"),
        student("cola", 3, "83.2"),
    ]
    assert picks(select(scores, Decimal(threshold))) == {"cola": (4, layers)}


def test_a_dip_does_not_end_the_search() -> None:
    scores = [student("rte", 1, "60"), student("rte", 2, "59"), student("rte", 3, "64")]
    assert picks(select([*scores, teacher("rte", 7, 5, "65")], Decimal(1))) == {"rte": (7, 3)}


def test_a_gain_of_exactly_the_threshold_counts_where_binary_fractions_would_miss_it() -> None:
    assert 0.3 - 0.1 < 0.2
    scores = [student("a", 1, "0.1"), student("a", 2, "0.3"), teacher("a", 2, 2, "0.3")]
    assert picks(select(scores, Decimal("0.2"))) == {"a": (2, 2)}


def test_many_digits_are_not_rounded() -> None:
    low, high = "91.0000000000000000000000000001", "92.0000000000000000000000000001"
    scores = [student("a", 1, low), teacher("a", 2, 2, high)]
    assert picks(select(scores, Decimal(1)))["a"] == (2, 2)
    assert picks(select(scores, Decimal("1.00000000000000000000000000001")))["a"] == (2, 1)


def test_the_best_teacher_counts_and_of_equal_ones_the_shallower() -> None:
    scores = [
        teacher("a", 2, 10, "70"),
        teacher("a", 7, 5, "71"),
        teacher("a", 4, 8, "71.0"),
        student("a", 1, "60"),
    ]
    assert picks(select(scores, Decimal(1))) == {"a": (7, 5)}
    assert picks(select(scores, Decimal(3))) == {"a": (7, 1)}


def test_students_of_another_teacher_are_left_out_and_named() -> None:
    scores = [
        teacher("a", 4, 8, "70"),
        teacher("a", 7, 5, "71"),
        (other := student("a", 1, "90", frozen=4)),
        student("a", 2, "70", frozen=7),
        student("b", 1, "50", frozen=4),
    ]
    selection = select(scores, Decimal(1))
    assert picks(selection) == {"a": (7, 2), "b": (4, 1)}
    assert selection.left_out == (other,)


def test_the_best_of_several_rows_of_one_module_counts() -> None:
    scores = [
        teacher("a", 7, 5, "70"),
        *(student("a", 1, score) for score in ("60", "66", "61")),
        *(student("a", 2, score) for score in ("59", "66.9", "20")),
    ]
    assert picks(select(scores, Decimal(1)))["a"] == (7, 5)
    assert picks(select(scores, Decimal("1.1")))["a"] == (7, 1)


def test_of_a_teacher_and_a_student_equal_in_all_the_teacher_is_taken() -> None:
    equal = [student("a", 5, "70"), teacher("a", 7, 5, "70")]
    assert [c.role for c in select(equal, Decimal(1)).choices] == ["teacher"]
    better = [student("a", 5, "70.1"), teacher("a", 7, 5, "70")]
    assert [c.role for c in select(better, Decimal(1)).choices] == ["student"]


# The account


PAPER = {
    # Teachers (frozen, own) and the modules chosen at 1, 2 and 3 points a layer: paper section 4.2.
    "qnli": ((2, 10), {1: 3, 2: 2, 3: 1}),
    "rte": ((7, 5), {1: 5, 2: 1, 3: 1}),
    "qqp": ((2, 10), {1: 1, 2: 1, 3: 1}),
    "mnli": ((4, 8), {1: 3, 2: 2, 3: 2}),
    "sst-2": ((6, 6), {1: 2, 2: 2, 3: 1}),
    "mrpc": ((7, 5), {1: 3, 2: 1, 3: 1}),
    "cola": ((4, 8), {1: 8, 2: 3, 3: 3}),
    "sts-b": ((4, 8), {1: 1, 2: 1, 3: 1}),
}


def made_up_scores() -> Iterable[Score]:
    """Made-up scores, NOT the paper's, from which the rule must make the choices of the paper.

    Each module that is to be chosen at a threshold is just worth it, counted from the one chosen
    at the next higher threshold; all others are worth less than 1 point a layer.
    """
    for task, ((frozen, own), chosen) in PAPER.items():
        worth = {1: Decimal(60)}
        for points in (3, 2, 1):
            deepest = max(worth)
            if chosen[points] > deepest:
                worth[chosen[points]] = worth[deepest] + points * (chosen[points] - deepest)
        for layers in (1, 2, 3):
            below = max(depth for depth in worth if depth <= layers)
            yield student(task, layers, str(worth[below]), frozen)
        yield teacher(task, frozen, own, str(worth.get(own, worth[max(worth)] + Decimal("0.9"))))


@pytest.mark.parametrize(
    ("threshold", "total", "overhead"), [(1, 33, 0.3438), (2, 20, 0.2083), (3, 18, 0.1875)]
)
def test_the_paper_s_choices_give_the_paper_s_layers(
    threshold: int, total: int, overhead: float
) -> None:
    selection = select([*made_up_scores()], Decimal(threshold))
    assert picks(selection) == {
        task: (frozen, chosen[threshold]) for task, ((frozen, _), chosen) in PAPER.items()
    }
    assert selection.layers == LayerAccount(
        shared=7, task=total - 7, total=total, single_task=96, overhead=overhead
    )


def published(name: str) -> list[dict[str, str]]:
    if not PUBLISHED.is_dir():
        pytest.skip(f"needs the paper's tables: no folder {PUBLISHED}")
    with (PUBLISHED / name).open(encoding="utf-8") as file:
        return [*csv.DictReader(file)]


@pytest.mark.parametrize(
    ("threshold", "total", "overhead"), [(1, 33, 0.3438), (2, 20, 0.2083), (3, 18, 0.1875)]
)
def test_the_paper_s_scores_lead_to_the_paper_s_teachers_and_choices(
    threshold: int, total: int, overhead: float
) -> None:
    picked = published("picks.csv")
    tasks = [*dict.fromkeys(row["task"] for row in picked)]
    partial = {int(row["layers"]): row for row in published("table1.csv")}
    methods = {row["method"]: row for row in published("tables2and5.csv")}
    # The paper searched teachers of 4 to 10 of the 12 layers.
    scores = [
        teacher(task, 12 - own, own, partial[own][task]) for task in tasks for own in range(4, 11)
    ]
    scores += [
        student(task, own, methods[f"kd-{own}"][task]) for task in tasks for own in (1, 2, 3)
    ]

    def picks_of(choice: str) -> dict[str, tuple[int, int]]:
        return {
            row["task"]: (int(row["frozen_layers"]), int(row["task_layers"]))
            for row in picked
            if row["choice"] == choice
        }

    selection = select(scores, Decimal(threshold))
    assert picks(selection) == picks_of(f"c={threshold}")
    teachers = select([score for score in scores if score.role == "teacher"], Decimal(threshold))
    assert picks(teachers) == picks_of("teacher")
    assert selection.layers == LayerAccount(
        shared=7, task=total - 7, total=total, single_task=96, overhead=overhead
    )
    mean = sum(choice.score for choice in selection.choices) / len(tasks)
    printed = Decimal(methods[f"mixed c={threshold}"]["average"])
    assert abs(mean - printed) <= Decimal("0.05")


def test_the_tasks_keep_the_order_of_their_first_rows() -> None:
    scores = [
        student("b", 1, "1"),
        teacher("a", 1, 1, "1"),
        teacher("b", 1, 1, "1"),
        student("a", 1, "1"),
    ]
    assert [c.task for c in select(scores, Decimal(0)).choices] == ["b", "a"]


def test_a_task_without_a_teacher_is_served_by_its_students() -> None:
    scores = [teacher("a", 4, 8, "1"), student("b", 1, "1", 5), student("b", 2, "9", 5)]
    assert picks(select(scores, Decimal(1)))["b"] == (5, 2)


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (["a,4,1,student,1"], ["no teacher among the scores"]),
        (["a,4,8,teacher,1", "b,4,7,teacher,1"], [":3:", ":2", "11 layers", "12;"]),
        (["a,0,0,teacher,1"], [":2:", "no layers"]),
        (["a,4,8,teacher,1", "b,,1,student,1"], [":3: column frozen_layers", "b has no teacher"]),
        (
            ["a,4,8,teacher,1", "b,5,1,student,1", "b,6,1,student,1"],
            [":4: keeps 6", ":3 keeps 5", "add the teacher's row"],
        ),
        (["a,4,8,teacher,1", "a,,9,student,1"], [":3: 4 frozen layers and 9 task layers", "12"]),
    ],
)
def test_scores_that_do_not_fit_together_are_refused(
    lines: list[str], says: list[str], tmp_path: Path
) -> None:
    scores = read_scores(write(tmp_path, "\n".join([HEADER, *lines])))
    with pytest.raises(DataError) as refused:
        select(scores, Decimal(1))
    assert all(part in str(refused.value) for part in says), refused.value


# What holds whatever the scores

points = st.decimals(min_value=-20, max_value=100, places=1)
thresholds = st.decimals(min_value=0, max_value=30, places=1)


@st.composite
def tables(draw: st.DrawFn) -> list[Score]:
    """Scores of up to three tasks on twelve layers; every task has a teacher."""
    scores = []
    for task in draw(st.sampled_from([("a",), ("a", "b"), ("a", "b", "c")])):
        frozen = draw(st.lists(st.integers(0, 11), min_size=1, max_size=3))
        scores += [teacher(task, x, 12 - x, str(draw(points))) for x in frozen]
        layers = st.tuples(st.integers(0, 12), st.sampled_from([*frozen, None]))
        for own, x in draw(st.lists(layers, max_size=6)):
            scores.append(student(task, min(own, 12 - max(frozen)), str(draw(points)), x))
    return scores


@given(st.data(), tables(), thresholds)
def test_neither_the_order_of_rows_nor_repeating_them_changes_the_choice(
    data: st.DataObject, scores: list[Score], threshold: Decimal
) -> None:
    once = select(scores, threshold)
    more = data.draw(st.lists(st.sampled_from(scores), max_size=4))
    again = select(data.draw(st.permutations([*scores, *more])), threshold)
    assert {c.task: c for c in again.choices} == {c.task: c for c in once.choices}
    assert again.layers == once.layers


@given(tables())
def test_without_a_threshold_the_best_score_wins_and_of_equal_ones_the_deepest(
    scores: list[Score],
) -> None:
    selection = select(scores, Decimal(0))
    for choice in selection.choices:
        candidates = [
            (row.score, row.task_layers)
            for row in scores
            if row.task == choice.task and row.frozen_layers in (None, choice.frozen_layers)
        ]
        assert (choice.score, choice.task_layers) == max(candidates)


@given(tables(), thresholds, thresholds)
def test_a_higher_threshold_never_chooses_more_layers_nor_a_better_score(
    scores: list[Score], one: Decimal, other: Decimal
) -> None:
    low = select(scores, min(one, other)).choices
    high = select(scores, max(one, other)).choices
    for cheap, dear in zip(high, low, strict=True):
        assert cheap.task_layers <= dear.task_layers
        assert cheap.score <= dear.score


@given(tables(), thresholds, st.integers(-50, 50), st.integers(1, 100))
def test_the_unit_of_the_scores_does_not_matter(
    scores: list[Score], threshold: Decimal, shift: int, scale: int
) -> None:
    moved = [Score(**(vars(row) | {"score": row.score * scale + shift})) for row in scores]
    assert picks(select(moved, threshold * scale)) == picks(select(scores, threshold))


# The file


def write(folder: Path, content: str | bytes) -> Path:
    path = folder / "scores.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_columns_come_in_any_order_beside_others_and_spreadsheets_are_read(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "\ufeffscore , seed,role,task_layers,task,frozen_layers,seed\r\n"
        '+70.50,1,teacher,5.0,"rte, small", 7 ,1\r\n'
        "\r\n"
        '6.05e1,,student,1,"rte, small",,2\r\n',
    )
    assert read_scores(path) == [
        Score(
            task="rte, small",
            frozen_layers=7,
            task_layers=5,
            role="teacher",
            score=Decimal("70.50"),
            where=f"{path}:2",
        ),
        Score(
            task="rte, small",
            frozen_layers=None,
            task_layers=1,
            role="student",
            score=Decimal("60.5"),
            where=f"{path}:4",
        ),
    ]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", ["is empty", HEADER]),
        ("\n\n", ["is empty"]),
        (HEADER, ["holds no scores"]),
        ("task,role,score\na,teacher,1", [":1: column frozen_layers is missing"]),
        ("Task;Role;Score\na;teacher;1", [":1: column task is missing"]),
        (f"{HEADER},score\na,4,8,teacher,1,2", [":1: column score is there 2 times"]),
        (f"{HEADER}\na,4,8,teacher", [":2: 4 cells", "has 5"]),
        (f"{HEADER}\na,4,8,teacher,91,0", [":2: 6 cells", "has 5"]),
        (f"{HEADER}\na,4,8,teacher,1\n ,4,8,teacher,1", [":3: column task is empty"]),
        (f"{HEADER}\na,4,8,Teacher,1", [":2: column role", "teacher or student", "'Teacher'"]),
        (f"{HEADER}\na,-4,8,teacher,1", [":2: column frozen_layers", "'-4'"]),
        (f"{HEADER}\na,4,8.5,teacher,1", [":2: column task_layers", "'8.5'"]),
        (f"{HEADER}\na,4,,student,1", [":2: column task_layers", "''"]),
        (f"{HEADER}\na,4,99999,student,1", [":2: column task_layers"]),
        (f"{HEADER}\na,,8,teacher,1", [":2: column frozen_layers", "''"]),
        (f"{HEADER}\na,\u0664,8,teacher,1", [":2: column frozen_layers"]),
        (f"{HEADER}\na,4,8,teacher,nan", [":2: column score", "'nan'"]),
        (f"{HEADER}\na,4,8,teacher,-inf", [":2: column score", "'-inf'"]),
        (f"{HEADER}\na,4,8,teacher,1_0", [":2: column score"]),
        (f"{HEADER}\na,4,8,teacher,1e999999999", [":2: column score"]),
        (f"{HEADER}\na,4,8,teacher,91%", [":2: column score", "'91%'"]),
        (f'{HEADER}\na,4,8,teacher,"1', [":2: not CSV"]),
        (HEADER.encode() + b"\n\xff,4,8,teacher,1", ["cannot be read as UTF-8"]),
    ],
)
def test_what_is_no_file_of_scores_is_refused_with_line_and_column(
    content: str | bytes, says: list[str], tmp_path: Path
) -> None:
    path = write(tmp_path, content)
    with pytest.raises(DataError) as refused:
        read_scores(path)
    assert str(refused.value).startswith(str(path))
    assert all(part in str(refused.value) for part in says), refused.value


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_scores(tmp_path / "none.csv")
    with pytest.raises(DataError, match="cannot be read"):
        read_scores(tmp_path)


@pytest.mark.parametrize(
    "text", ["-1", "-0.1", "nan", "inf", "Infinity", "", "one", "1,5", "1e999"]
)
def test_a_threshold_that_is_no_gain_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="expected a number of at least 0"):
        parse_threshold(text)


def test_a_threshold_is_read_as_it_is_written() -> None:
    assert [parse_threshold(text) for text in ("0.1", "0", "-0", "1e-1")] == [
        Decimal("0.1"),
        Decimal(0),
        Decimal(0),
        Decimal("0.1"),
    ]


def test_choosing_imports_nothing_heavy() -> None:
    imported = support.imported_by("import centra.training.select")
    assert not imported & {"torch", "transformers", "numpy", "pandas", "sklearn"}
