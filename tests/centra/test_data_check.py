"""A check of labelled data: what is there, what repeats, what is cut, and what cannot be used."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from centra.data.check import DataCheck, check_data
from centra.data.inputs import read_examples
from centra.data.labelling import Labelling
from centra.data.source import DataSource
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


def test_every_format_has_the_same_findings(tmp_path: Path) -> None:
    expected = checked(tmp_path / "lines", [*PLAIN, PLAIN[0]], [*OTHER, {**PLAIN[1]}])
    datasets = pytest.importorskip("datasets")
    parts = {"train": [*PLAIN, PLAIN[0]], "validation": [*OTHER, PLAIN[1]]}
    saved = {name: datasets.Dataset.from_list(rows) for name, rows in parts.items()}
    datasets.DatasetDict(saved).save_to_disk(str(tmp_path / "saved"))
    for form in ("csv", "parquet", "json"):
        (tmp_path / form).mkdir()
        for name, rows in saved.items():
            path = str(tmp_path / form / f"{name}.{form}")
            {"csv": rows.to_csv, "parquet": rows.to_parquet, "json": rows.to_json}[form](path)
    for form in ("saved", "csv", "parquet", "json"):
        check = check_data(tmp_path / form)
        assert {f.code: f.text for f in check.findings} == {
            f.code: f.text for f in expected.findings
        }
        assert (check.rows, check.labels, check.lengths) == (
            expected.rows,
            expected.labels,
            expected.lengths,
        )
        encodings = {file.encoding for file in check.files}
        assert encodings == ({None} if form in ("saved", "parquet") else {"utf-8"})


def test_columns_encoding_and_split_are_said(tmp_path: Path) -> None:
    text = "utterance;intent\n" + "".join(f"{r['text']} ü;{r['label']}\n" for r in PLAIN)
    for name in ("train", "gold", "test"):
        (tmp_path / f"{name}.csv").write_text(text, encoding="latin-1")
    options: Any = {"columns": ["text=utterance", "label=intent"], "encoding": "latin-1"}
    check = check_data(DataSource.of(tmp_path, splits=["gold"], **options))
    assert check.rows == {"train": 12, "dev": 12, "test": 12}
    assert {file.encoding for file in check.files} == {"latin-1"}
    # What was said to be the part to measure on is no test.
    check = check_data(DataSource.of(tmp_path, splits=["dev=test"], **options))
    assert check.rows == {"train": 12, "dev": 12}
    (one,) = check_data(DataSource.of(tmp_path / "gold.csv", **options)).files
    assert (one.split, one.rows) == ("gold", 12)


def test_shards_are_one_split(tmp_path: Path) -> None:
    for number in range(3):
        rows = PLAIN[number::3]
        write_jsonl(tmp_path / f"train-{number:05}-of-00003.jsonl", rows)
    write_jsonl(tmp_path / "dev.jsonl", OTHER)
    check = check_data(tmp_path)
    assert (check.rows, len(check.files)) == ({"train": 12, "dev": 4}, 4)
    assert check.findings == ()


TABLE = "text,label,note\n" + "".join(f"{row['text']},{row['label']},x\n" for row in PLAIN)
SENTENCES = "to O\nrome B-city\n\n" * 6


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.csv", TABLE + "go\nstop,stop,a,b\n,go,x\n", {"unusable-row": "14 15", "empty-text": "16"}),
        ("a.csv", (TABLE + "caf\xe9,go,x\n").encode("latin-1"), {"unusable-row": "14"}),
        ("a.csv", TABLE + '"never closed,go,x\nstop,stop,x\n', {"unusable-row": "14"}),
        ("a.csv", TABLE + "no label,,x\n", {"unusable-row": "14"}),
        ("a.json", json.dumps([*PLAIN, 3, ["x"]], indent=None), {"unusable-row": "1 1"}),
        ("a.jsonl", "\n".join(map(json.dumps, PLAIN)) + '\n{"text": \n[1]\n', {"unusable-row": "13 14"}),
        ("a.jsonl", ("\n".join(map(json.dumps, PLAIN)) + "\n\xe9").encode("latin-1"), {"unusable-row": "13"}),
        ("a.conll", SENTENCES + "to O\nrome\n\noslo B-city\n", {"unusable-row": "19"}),
    ],
)  # fmt: skip
def test_rows_that_can_be_told_apart_are_findings(
    name: str, content: str | bytes, told: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    check = check_data(tmp_path / name)
    problems = {
        finding.code: " ".join(place.rpartition(":")[2] for place in finding.places)
        for finding in check.problems
    }
    assert problems == told
    assert check.rows["a"] > check.lengths["a"].total
    with pytest.raises(DataError, match=f"{name}:"):
        read_examples(tmp_path / name)


def test_a_test_set_without_labels_is_left_out(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "test.jsonl", [{"text": row["text"], "label": None} for row in PLAIN])
    check = checked(tmp_path, PLAIN, OTHER)
    assert found(check) == {
        "no-labels": ("no row of test has a label: nothing can be measured on it", [])
    }
    assert check.rows == {"train": 12, "dev": 4, "test": 12}
    (tmp_path / "test.jsonl").unlink()
    (tmp_path / "test.tsv").write_text("index\tsentence\n0\tgo 1\n")
    assert [*found(check_data(tmp_path))] == ["no-labels"]


def test_torn_rows_of_glue_are_said(tmp_path: Path) -> None:
    head = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n"
    rows = "".join(f"{i}\t1\t2\tWho {i}?\tWhat {i}?\t{i % 2}\n" for i in range(12))
    (tmp_path / "train.tsv").write_text(head + rows + "13\t1\t2\tWho\n14\t1\t2\tWho?\t\t1\n")
    (tmp_path / "dev.tsv").write_text(head + rows.replace("Who", "When"))
    assert found(check_data(tmp_path)) == {
        "torn-row": (
            (
                "2 of 14 rows are left out, torn as in GLUE (too few cells, too many, or an empty one)"
            ),
            ["train.tsv:14", "train.tsv:15"],
        )
    }


def test_what_is_missing_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"train\.jsonl: no such file"):
        check_data(tmp_path)
    write_jsonl(tmp_path / "train.jsonl", PLAIN)
    assert [*found(check_data(tmp_path))] == ["missing-split"]
    assert check_data(write_jsonl(tmp_path / "rows.jsonl", PLAIN)).findings == ()
    (tmp_path / "dev.jsonl").write_text("\n \n")
    assert [*found(check_data(tmp_path))] == ["no-rows"]
    (tmp_path / "dev.jsonl").write_bytes(b"\xff\xfe\x00\xd8\xff")
    with pytest.raises(DataError, match=r"dev\.jsonl:1: column 1 cannot be read as UTF-8 text"):
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
