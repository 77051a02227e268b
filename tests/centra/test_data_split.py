"""A dev split: stratified, the same each time, and without a text that train has, too."""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from centra.data.check import check_data
from centra.data.source import DataSource
from centra.data.split import split_data
from centra.errors import ConflictError, DataError, UsageError
from tests.support import ROOT, write_jsonl

if TYPE_CHECKING:
    from collections.abc import Callable

DATA = Path(os.environ.get("CENTRA_DATA", ROOT.parent / "shared" / "data"))

ROWS = [
    {"text": f"{label} {i}", "label": label}
    for label, count in (("often", 100), ("seldom", 20), ("rare", 5), ("once", 1))
    for i in range(count)
]


def split(folder: Path, rows: Any, **options: Any) -> tuple[list[Any], list[Any]]:
    """The rows of train and of dev."""
    file = write_jsonl(folder / "all.jsonl", rows)
    name = f"parts-{len([*folder.iterdir()])}"
    found = split_data(file, folder / name, **options)
    train, dev = (
        [json.loads(line) for line in path.read_text().splitlines()]
        for path in (found.train, found.dev)
    )
    return train, dev


def labels(rows: list[Any]) -> Counter[str]:
    return Counter(row["label"] for row in rows)


def test_each_label_has_its_share(tmp_path: Path) -> None:
    train, dev = split(tmp_path, ROWS, share=0.2)
    assert labels(dev) == {"often": 20, "seldom": 4, "rare": 1}
    assert labels(train) == {"often": 80, "seldom": 16, "rare": 4, "once": 1}
    # As they were, and in their order.
    assert [row for row in ROWS if row in train] == train
    assert [row for row in ROWS if row in dev] == dev


def test_what_small_labels_round_off_is_made_up_for_by_others(tmp_path: Path) -> None:
    rows = [{"text": f"{label} {i}", "label": f"{label}"} for label in range(50) for i in range(14)]
    train, dev = split(tmp_path, rows)
    assert (len(train), len(dev)) == (630, 70)
    assert {*labels(dev).values()} == {1, 2}


def test_the_split_follows_from_texts_and_seed_alone(tmp_path: Path) -> None:
    _, first = split(tmp_path, ROWS)
    shuffled = random.Random(0).sample(ROWS, len(ROWS))
    _, again = split(tmp_path, shuffled)
    _, other = split(tmp_path, ROWS, seed=1)
    texts = [{row["text"] for row in rows} for rows in (first, again, other)]
    assert texts[0] == texts[1] != texts[2]


def test_rows_of_one_text_stay_together(tmp_path: Path) -> None:
    rows = [
        {"text": text, "label": label}
        for i in range(40)
        for text, label in ((f"text {i}", "a"), (f"TEXT {i}", "a"), (f" text  {i}", "b"))
    ]
    train, dev = split(tmp_path, rows, share=0.25)
    apart = [{row["text"].split()[1] for row in part} for part in (train, dev)]
    assert apart[0].isdisjoint(apart[1])
    assert (len(dev), len(train)) == (30, 90)


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_every_label_stays_in_train(tmp_path: Path, share: float) -> None:
    train, dev = split(tmp_path, ROWS, share=share)
    assert labels(train).keys() == {"often", "seldom", "rare", "once"}
    assert abs(len(dev) / len(ROWS) - share) < 0.02


def test_two_texts_are_one_for_each(tmp_path: Path) -> None:
    rows = [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}]
    train, dev = split(tmp_path, rows)
    assert (len(train), len(dev)) == (1, 1)


@pytest.mark.parametrize("kind", ["multilabel", "regression", "tagging", "pair"])
def test_every_kind_is_split_without_a_leak(
    tiny_data: Callable[[str], Path], tmp_path: Path, kind: str
) -> None:
    found = split_data(tiny_data(kind) / "train.jsonl", tmp_path, share=0.25)
    check = check_data(tmp_path)
    assert (check.repeats.leaks, check.problems) == ((), [])
    assert 0.15 < found.rows["dev"] / sum(found.rows.values()) < 0.35
    assert all(counts["dev"] for counts in check.labels.values())


def test_splitting_again_changes_nothing_and_other_data_are_kept(tmp_path: Path) -> None:
    data, parts = tmp_path / "data", tmp_path / "deep" / "parts"
    write_jsonl(data / "train.jsonl", ROWS)
    first = split_data(data, parts)
    before = {path.name: path.read_bytes() for path in parts.iterdir()}
    assert before.keys() == {"train.jsonl", "dev.jsonl"}
    assert (first.changed, split_data(data, parts).changed) == (True, False)
    (parts / "train.jsonl").unlink()  # As a kill in between leaves it.
    assert split_data(data, parts).changed
    assert {path.name: path.read_bytes() for path in parts.iterdir()} == before
    with pytest.raises(ConflictError, match="holds other data"):
        split_data(data, parts, seed=1)
    with pytest.raises(ConflictError, match="holds other data"):
        split_data(data, data)
    assert {path.name: path.read_bytes() for path in parts.iterdir()} == before
    with pytest.raises(UsageError, match="has a dev split; to split its training data again, name"):
        split_data(parts, tmp_path / "again")


def test_what_cannot_be_split_is_refused(tmp_path: Path) -> None:
    for share in (0, 1, -0.1, float("nan")):
        with pytest.raises(UsageError, match="expected a share between 0 and 1"):
            split(tmp_path, ROWS, share=share)
    same = [{"text": text, "label": "x"} for text in ("a", "A ", "a")]
    with pytest.raises(
        DataError, match="1 text is there; training and measuring take at least two"
    ):
        split(tmp_path, same)
    with pytest.raises(DataError, match=r"all\.jsonl:2: the text is empty"):
        split(tmp_path, [ROWS[0], {"text": "", "label": "x"}])
    assert not [*tmp_path.glob("parts-*")]


@pytest.mark.skipif(
    not (DATA / "slots_snips").is_dir(), reason=f"no labelled data sets in {DATA} (see CENTRA_DATA)"
)
@pytest.mark.parametrize("task", ["banking_intent", "slots_restaurant"])
def test_real_data_keep_their_shares(tmp_path: Path, task: str) -> None:
    split_data(DATA / task / "train.jsonl", tmp_path)
    check = check_data(tmp_path)
    assert check.repeats.leaks == ()
    shares = [counts["dev"] / sum(counts.values()) for counts in check.labels.values()]
    assert min(shares) > 0.07
    assert max(shares) < 0.13


def test_any_format_is_split(tmp_path: Path) -> None:
    rows = [{**row, "source": "web"} for row in ROWS]
    text = "intent;utterance;source\n" + "".join(
        f"{row['label']};{row['text']} ü;web\n" for row in ROWS
    )
    (tmp_path / "train.csv").write_text(text, encoding="latin-1")
    source = DataSource.of(tmp_path, columns=["text=utterance", "label=intent"], encoding="latin-1")
    found = split_data(source, tmp_path / "parts", share=0.2)
    written = [json.loads(line) for line in found.train.read_text().splitlines()]
    assert len(written) == found.rows["train"] == 101
    expected = [{**row, "text": f"{row['text']} ü"} for row in rows]
    assert all(row in expected for row in written)
    (tmp_path / "validation.csv").write_text(text, encoding="latin-1")
    with pytest.raises(UsageError, match=r"has a dev split; .* name the file: .*train\.csv"):
        split_data(source, tmp_path / "again")


def test_what_datasets_saved_without_splits_is_split(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_list(ROWS).save_to_disk(str(tmp_path / "saved"))
    found = split_data(tmp_path / "saved", tmp_path / "parts", share=0.2)
    assert found.rows == {"train": 101, "dev": 25}


def test_nothing_is_split_of_half_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\na,x\nb\nc,y\n")
    with pytest.raises(DataError, match=r"a\.csv:3: has 1 cells"):
        split_data(tmp_path / "a.csv", tmp_path / "parts")
    assert not (tmp_path / "parts").exists()
