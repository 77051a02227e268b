"""A check of labelled data: what is there, what repeats, what is cut, and what cannot be used."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from centra.data.check import DataCheck, check_data
from centra.data.labelling import Labelling
from centra.errors import DataError
from centra.tokenization.text_encoder import TextEncoder
from tests.support import ROOT, write_jsonl

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests import support

DATA = Path(os.environ.get("CENTRA_DATA", ROOT.parent / "shared" / "data"))
needs_data = pytest.mark.skipif(
    not (DATA / "emotion").is_dir(), reason=f"no labelled data sets in {DATA} (see CENTRA_DATA)"
)

PLAIN = [{"text": f"{what} {i}", "label": what} for what in ("go", "stop") for i in range(6)]
OTHER = [{"text": f"{what} now {i}", "label": what} for what in ("go", "stop") for i in range(2)]


def checked(folder: Path, train: Sequence[object], dev: Sequence[object], **more: Any) -> DataCheck:
    write_jsonl(folder / "train.jsonl", train)
    write_jsonl(folder / "dev.jsonl", dev)
    return check_data(folder, **more)


def found(check: DataCheck) -> dict[str, tuple[str, list[str]]]:
    """Text and places of the findings by their codes; each code is there once."""
    codes = [finding.code for finding in check.findings]
    assert len({*codes}) == len(codes)
    return {
        finding.code: (finding.text, [place.rpartition("/")[2] for place in finding.places])
        for finding in check.findings
    }


def groups(several: Any) -> list[list[str]]:
    return [[row.example.where.rpartition("/")[2] for row in rows] for rows in several]


def test_data_in_order_have_no_findings(tmp_path: Path) -> None:
    check = checked(tmp_path, PLAIN, OTHER)
    assert check.findings == ()
    assert check.labels == {"go": {"train": 6, "dev": 2}, "stop": {"train": 6, "dev": 2}}
    assert check.contract is not None
    assert (check.contract.kind, check.contract.input) == ("classification", "single")
    assert [(file.split, file.rows, file.encoding) for file in check.files] == [
        ("train", 12, "utf-8"),
        ("dev", 4, "utf-8"),
    ]
    assert (check.unit, check.max_length, check.truncated) == ("words", None, None)
    assert check.lengths["dev"].counts == {3: 4}


def test_texts_are_the_same_but_for_case_space_and_unicode_form(tmp_path: Path) -> None:
    same = ["Straße  \tNo. 5", "STRASSE no. 5", "ｓtrasse No. 5"]
    train = [*PLAIN, *({"text": text, "label": "go"} for text in same)]
    dev = [*OTHER, {"text": " strasse no. 5", "label": "stop"}]
    check = checked(tmp_path, train, dev)
    assert found(check) == {
        "leak": (
            "1 of 5 rows of dev are in train, too: what is measured on dev is partly learnt by heart",
            ["dev.jsonl:5"],
        ),
        "contradiction": (
            "1 text has different labels in different rows (4 rows)",
            ["train.jsonl:13", "train.jsonl:14", "train.jsonl:15", "dev.jsonl:5"],
        ),
        "duplicate": (
            "2 of 15 rows of train repeat another one",
            ["train.jsonl:14", "train.jsonl:15"],
        ),
    }
    assert groups(check.repeats.leaks) == groups(check.repeats.contradictions)
    assert groups(check.repeats.duplicates) == [[f"train.jsonl:{row}" for row in (13, 14, 15)]]
    assert check.problems == []


def test_of_a_pair_both_texts_must_be_the_same(tmp_path: Path) -> None:
    pairs = [("a b", "c"), ("a", "b c"), ("A  b", "C"), ("c", "a b")]
    rows = [{"text": one, "text_pair": other, "label": "yes"} for one, other in pairs]
    check = checked(tmp_path, rows * 2, [{"text": "x", "text_pair": "y", "label": "yes"}])
    assert groups(check.repeats.duplicates) == [
        [f"train.jsonl:{row}" for row in of] for of in ((1, 3, 5, 7), (2, 6), (4, 8))
    ]


def test_the_same_answer_in_another_form_is_no_contradiction(tmp_path: Path) -> None:
    several = [
        {"text": "both", "labels": ["a", "b"]},
        {"text": "both", "labels": ["b", "a"]},
        {"text": "one", "labels": ["a"]},
        {"text": "one", "labels": []},
    ]
    check = checked(tmp_path / "several", several, several[:1])
    assert groups(check.repeats.contradictions) == [["train.jsonl:3", "train.jsonl:4"]]
    tagged = [
        {"tokens": ["to", "New", "York"], "labels": ["O", "B-city", "I-city"]},
        {"tokens": ["to", "New York"], "labels": ["O", "B-city"]},
        {"tokens": ["to", "new", "york"], "labels": ["O", "B-city", "B-city"]},
    ]
    check = checked(tmp_path / "tagged", tagged[:2], tagged[2:])
    assert groups(check.repeats.duplicates) == [["train.jsonl:1", "train.jsonl:2"]]
    assert len(check.repeats.contradictions) == 1
    values = [{"text": "so", "label": number} for number in (1, 1.0, 2.5)]
    check = checked(tmp_path / "values", values[:2], values[2:])
    assert groups(check.repeats.duplicates) == [["train.jsonl:1", "train.jsonl:2"]]
    assert groups(check.repeats.contradictions)[0][-1] == "dev.jsonl:1"
    assert check.values == {"train": (1, 1, 1), "dev": (2.5, 2.5, 2.5)}
    assert check.labels == {}


def test_labels_that_one_split_knows_and_labels_that_are_rare(tmp_path: Path) -> None:
    train = [*PLAIN * 60, *({"text": f"rare {i}", "label": "rare"} for i in range(4))]
    check = checked(tmp_path, train, [*OTHER, {"text": "huh", "label": "unknown"}])
    said = found(check)
    del said["duplicate"]
    assert said == {
        "label-not-in-train": (
            "1 label is only in dev, and cannot be learnt: unknown",
            ["dev.jsonl:5"],
        ),
        "label-not-measured": ("1 label is not in dev, and not measured there: rare", []),
        "rare-label": ("1 label is fewer than 5 times in train: rare", []),
        "imbalance": (
            (
                "unbalanced: 'go' is in train 360 times, 'rare' 4; look at scores that weigh labels "
                "alike (macro_f1)"
            ),
            [],
        ),
    }
    assert [check.only_in(label) for label in ("go", "rare", "unknown")] == [None, "train", "dev"]
    assert [finding.code for finding in check.problems] == ["label-not-in-train"]


def test_rows_that_cannot_be_used_are_all_named(tmp_path: Path) -> None:
    hostile = [
        {"text": " \t", "label": "go"},
        {"text": "no label"},
        {"text": "x", "label": None},
        ["a", "list"],
        {"text": "", "text_pair": "", "label": "go"},
        {"tokens": ["a", "b"], "labels": ["O"]},
        {"text": "other", "label": 3},
        {"text": "two", "text_pair": "texts", "label": "go"},
        {"text": "several", "labels": ["go"]},
    ]
    check = checked(tmp_path, [*PLAIN, *hostile[:6]], [*OTHER, *hostile[7:]])
    said = found(check)
    assert said["empty-text"] == ("2 rows without a text", ["train.jsonl:13", "train.jsonl:17"])
    text, places = said["unusable-row"]
    assert text.startswith("4 rows that cannot be used; the first is ")
    assert "train.jsonl:14: expected 'label'" in text
    assert places == [f"train.jsonl:{row}" for row in (14, 15, 16, 18)]
    assert said["another-sort"] == (
        "2 rows of another sort: most have a single input and one label, and a task takes one kind",
        ["dev.jsonl:5", "dev.jsonl:6"],
    )
    assert {finding.level for finding in check.findings} == {"problem"}
    assert check.labels["go"] == {"train": 6, "dev": 2}

    check = checked(tmp_path, [*PLAIN, hostile[6]], OTHER)
    (text, _) = found(check)["labels-unusable"]
    assert "has a number as its label" in text
    assert check.contract is None


def test_texts_that_were_broken_before(tmp_path: Path) -> None:
    broken = ["cafÃ© au lait", "donâ€™t", "caf\ufffd", "bell \x07"]
    fine = ["café", "São Paulo — «MAÇÃ»", "line\nfeed\ttab", "Âge"]
    rows = [{"text": text, "label": "go"} for text in broken + fine]
    check = checked(tmp_path, [*PLAIN, *rows], OTHER)
    assert [
        (finding.code, [place.rpartition(":")[2] for place in finding.places])
        for finding in check.findings
    ] == [("broken-text", ["15"]), ("broken-text", ["13", "14"]), ("broken-text", ["16"])]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_the_encoding_of_a_file_is_told(tmp_path: Path, encoding: str) -> None:
    text = '{"text": "grüß dich", "label": "go"}\n'
    (tmp_path / "train.jsonl").write_text(text, encoding=encoding)
    check = check_data(tmp_path / "train.jsonl")
    assert (check.files[0].encoding, check.lengths["train"].total) == (encoding, 1)


def test_what_is_missing_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"train\.jsonl: no such file"):
        check_data(tmp_path)
    write_jsonl(tmp_path / "train.jsonl", PLAIN)
    assert [*found(check_data(tmp_path))] == ["no-dev"]
    assert check_data(write_jsonl(tmp_path / "rows.jsonl", PLAIN)).findings == ()
    (tmp_path / "dev.jsonl").write_text("\n \n")
    assert [*found(check_data(tmp_path))] == ["no-rows"]
    (tmp_path / "dev.jsonl").write_bytes(b"\xff\xfe\x00\xd8\xff")
    with pytest.raises(DataError, match=r"dev\.jsonl: cannot be read as UTF-8 text"):
        check_data(tmp_path)


def test_labels_mean_what_is_said_of_them(tmp_path: Path) -> None:
    numbers = [{"text": f"row {i}", "label": i % 3} for i in range(30)]
    check = checked(tmp_path, numbers[:20], numbers[20:])
    assert sorted(check.labels) == ["0", "1", "2"]
    assert check.remarks == ("3 whole numbers as labels: taken as classes",)
    check = checked(tmp_path, numbers[:20], numbers[20:], labelling=Labelling(kind="regression"))
    assert (check.labels, check.values["dev"]) == ({}, (0, 1.1, 2))


def test_what_truncation_cuts_is_told_with_entities_by_name(
    tiny_backbone: support.Backbone, tmp_path: Path
) -> None:
    rows = [
        {
            "tokens": ["fly", "to", "rome", *["on"] * between, "oslo", "now"],
            "labels": ["O", "O", "B-city", *["O"] * between, kind, "O"],
        }
        for between, kind in ((3, "B-city"), (80, "B-city"), (81, "B-town"), (82, "B-city"))
    ]
    spec = tiny_backbone.spec
    encoder = TextEncoder.of(spec, tiny_backbone.store)
    check = checked(tmp_path, rows, rows[:1], encoder=encoder, max_length=spec.max_length)
    assert check.truncated is not None
    assert [place.rpartition(":")[2] for place in check.truncated["train"].places] == [
        "2",
        "3",
        "4",
    ]
    assert check.truncated["train"].entities == {"city": 2, "town": 1}
    assert check.truncated["dev"].places == ()
    assert found(check)["truncated"][0] == (
        "3 of 4 rows of train are cut at 64 tokens, and with them entities: city 2 of 7, town 1 of 1"
    )
    lengths = check.lengths["train"]
    # Before anything is cut.
    assert (check.unit, lengths.total, lengths.at(1) > 80) == ("tokens", 4, True)


def test_scripts_without_spaces_are_counted_in_characters(tmp_path: Path) -> None:
    rows = [{"text": text, "label": "天气"} for text in ("明天 会下雨吗", "北京今天多少度", "ok")]
    check = checked(tmp_path, rows, rows[:1])
    assert (check.unit, check.lengths["train"].counts) == ("characters", {2: 1, 6: 1, 7: 1})


@needs_data
@pytest.mark.parametrize(
    ("task", "kind", "contradictions"),
    [
        ("cola", "classification", 11),
        ("emotion", "classification", 2),
        ("ner_wnut17", "tagging", 11),
        ("stsb", "regression", 4),
    ],
)
def test_real_data_have_what_their_makers_say_of_them(
    task: str, kind: str, contradictions: int
) -> None:
    check = check_data(DATA / task)
    assert check.contract is not None
    assert check.contract.kind == kind
    assert (check.problems, check.repeats.leaks) == ([], ())
    inside_train = [
        group for group in check.repeats.contradictions if {row.split for row in group} == {"train"}
    ]
    assert len(inside_train) == contradictions
