"""``centra select``: what it prints, and where."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.helpers import centra, read, refused

# Made-up scores, not measured ones.
SCORES = """\
task,frozen_layers,task_layers,role,score,seed
rte,7,5,teacher,70.50,0
rte,7,1,student,66.40,0
rte,4,1,student,99,0
rte,4,2,student,99,0
qqp,2,10,teacher,91.4,0
qqp,,1,student,91.0,0
"""


@pytest.fixture
def scores() -> Path:
    """The file of scores; there is no registry beside it, and none is needed."""
    path = Path("scores.csv")
    path.write_text(SCORES)
    return path


def test_the_choice_is_a_table_with_its_layers(scores: Path) -> None:
    result = centra("select", "--scores", scores, "--threshold", "1")
    assert [" ".join(line.split()) for line in result.stdout.splitlines()] == [
        "TASK FROZEN LAYERS TASK LAYERS ROLE SCORE",
        "rte 7 5 teacher 70.50",
        "qqp 2 1 student 91.0",
        "7 shared + 6 own = 13 layers, 54.2% of 24 with a full model per task",
    ]
    assert result.stderr == (
        "rte: students of other teachers left out: 2; the best teacher keeps 7 layers frozen\n"
    )


def test_the_choice_is_json(scores: Path) -> None:
    assert read("select", "--scores", scores, "--threshold", "1.1") == {
        "choices": [
            {
                "task": "rte",
                "frozen_layers": 7,
                "task_layers": 1,
                "role": "student",
                "score": 66.4,
            },
            {
                "task": "qqp",
                "frozen_layers": 2,
                "task_layers": 1,
                "role": "student",
                "score": 91.0,
            },
        ],
        "layers": {
            "shared": 7,
            "task": 2,
            "total": 9,
            "single_task": 24,
            "overhead": 0.375,
        },
    }


def test_a_gain_of_exactly_the_threshold_counts() -> None:
    path = Path("scores.csv")
    path.write_text(
        "task,frozen_layers,task_layers,role,score\na,1,2,teacher,0.3\na,1,1,student,0.1"
    )
    found = json.loads(centra("select", "--scores", path, "--threshold", "0.2", "--json").stdout)
    assert [task["task_layers"] for task in found["choices"]] == [2]


def test_what_cannot_be_chosen_from_is_refused(scores: Path) -> None:
    for threshold in ("-1", "nan", "much"):
        refused("select", "--scores", scores, f"--threshold={threshold}", code=2, says=threshold)
    refused("select", "--scores", "none.csv", "--threshold", "1", code=1, says="no such file")
    scores.write_text(SCORES.replace("91.4", "inf"))
    refused(
        "select", "--scores", scores, "--threshold", "1", code=1, says="scores.csv:6: column score"
    )


def test_the_layers_are_told_as_compose_tells_them(home: Path) -> None:
    Path("scores.csv").write_text(
        "task,frozen_layers,task_layers,role,score\n"
        "intent,1,1,student,1\n"
        "intent,1,2,teacher,1\n"
        "slots,2,1,teacher,1\n"
        "same,1,2,teacher,1\n"
    )
    chosen = read("select", "--scores", "scores.csv", "--threshold", "1")
    assert chosen["layers"] == read("compose")["layers"]
