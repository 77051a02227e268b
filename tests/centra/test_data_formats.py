"""Labelled data in every format: the same examples from all of them, and what malformed ones are told."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING, Any

import pytest

from centra.data.check import check_data
from centra.data.inputs import examples_of, fingerprint_of, read_examples
from centra.data.labelling import read_as
from centra.data.rows import read_part
from centra.data.source import DataSource
from centra.errors import CentraError, DataError, UsageError
from centra.scoring.plan import plan_outputs
from tests import support

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from centra.data.inputs import Example

Rows = list[dict[str, Any]]

SINGLE: Rows = [
    {"text": "wake me at seven", "label": "alarm"},
    {"text": 'play "Yesterday", please', "label": "music"},
    {"text": "is it\nraining; or not?", "label": "weather"},
    {"text": "größer 明日", "label": "weather"},
    {"text": "one, two\nthree", "label": "music"},
]
PAIR: Rows = [
    {"text": "A man sings.", "text_pair": "A man is singing.", "label": 4.75},
    {"text": "A dog, brown", "text_pair": "A cat", "label": 1.0},
]
SEVERAL: Rows = [
    {"text": "I love it", "labels": ["joy", "love"]},
    {"text": "so what", "labels": []},
]
TAGGED: Rows = [
    {"tokens": ["Anna", "Lee", "saw", "Paris"], "labels": ["B-PER", "I-PER", "O", "B-LOC"]},
    {"tokens": ["Nothing", "#here"], "labels": ["O", "O"]},
    {"tokens": ["Rome", "Oslo"], "labels": ["B-LOC", "B-LOC"]},
]
KINDS = {
    "classification": SINGLE,
    "regression": PAIR,
    "multilabel": SEVERAL,
    "tagging": TAGGED,
}


def read(source: DataSource, kind: str) -> list[Example]:
    """The examples to learn from as a task of a kind has them."""
    return read_as(kind, examples_of(read_part(source, "train"))).examples


def digest(data: Path, kind: str, **options: Any) -> str:
    return fingerprint_of(read(DataSource.of(data, **options), kind))


def expected(rows: Rows, kind: str, folder: Path) -> str:
    return digest(support.write_jsonl(folder / "expected" / "train.jsonl", rows).parent, kind)


def table(rows: Rows, delimiter: str = ",", *, names: bool = True) -> str:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter)
    if names:
        writer.writerow(rows[0])
    for row in rows:
        writer.writerow([json.dumps(v) if isinstance(v, list) else v for v in row.values()])
    return text.getvalue()


def conll(
    rows: Rows, separator: str = " ", tags: Callable[[Sequence[str]], Sequence[str]] = list
) -> str:
    return "\n".join(
        "".join(
            f"{token}{separator}{tag}\n"
            for token, tag in zip(row["tokens"], tags(row["labels"]), strict=True)
        )
        for row in rows
    )


def write_columns(folder: Path, name: str, rows: list[dict[str, Any]]) -> None:
    """Rows as a Parquet file, or as a data set that ``datasets`` saved."""
    if name == "saved":
        datasets = pytest.importorskip("datasets")
        datasets.DatasetDict({"train": datasets.Dataset.from_list(rows)}).save_to_disk(str(folder))
    else:
        pa = pytest.importorskip("pyarrow")
        pa.parquet = pytest.importorskip("pyarrow.parquet")
        pa.parquet.write_table(pa.Table.from_pylist(rows), folder / name)


# The same task from every format


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["train.csv", "train.tsv", "train.json", "train.parquet", "saved"])
def test_every_format_has_the_same_digest(name: str, kind: str, tmp_path: Path) -> None:
    rows, folder = KINDS[kind], tmp_path / "data"
    folder.mkdir()
    if name in ("train.parquet", "saved"):
        write_columns(folder, name, rows)
    elif name == "train.json":
        (folder / name).write_text(json.dumps(rows, indent=1))
    else:
        delimiter = "," if name.endswith("csv") else "\t"
        (folder / name).write_text(table(rows, delimiter), newline="")
    assert digest(folder, kind) == expected(rows, kind, tmp_path)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|", "^", ":"])
def test_any_character_may_delimit(delimiter: str, tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text(table(SINGLE, delimiter), newline="")
    assert digest(tmp_path, "classification") == expected(SINGLE, "classification", tmp_path)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32", "gb18030"])
@pytest.mark.parametrize("name", ["train.csv", "train.jsonl", "train.json"])
def test_encodings(name: str, encoding: str, tmp_path: Path) -> None:
    text = {
        "train.csv": table(SINGLE),
        "train.jsonl": "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in SINGLE),
        "train.json": json.dumps(SINGLE, ensure_ascii=False),
    }[name]
    (tmp_path / name).write_bytes(text.encode(encoding))
    said = {"encoding": encoding} if encoding == "gb18030" else {}
    assert digest(tmp_path, "classification", **said) == expected(
        SINGLE, "classification", tmp_path
    )


@pytest.mark.parametrize(
    "name", ["train.csv", "train.jsonl", "train.json", "train.parquet", "saved"]
)
def test_columns_of_other_names(name: str, tmp_path: Path) -> None:
    rows = [
        {"id": 1, "utterance": row["text"], "label": "x", "intent": row["label"]} for row in SINGLE
    ]
    folder = tmp_path / "data"
    folder.mkdir()
    if name in ("train.parquet", "saved"):
        write_columns(folder, name, rows)
    elif name == "train.csv":
        (folder / name).write_text(table(rows), newline="")
    elif name == "train.json":
        (folder / name).write_text(json.dumps({"version": 1, "data": rows}))
    else:
        support.write_jsonl(folder / name, rows)
    found = digest(folder, "classification", columns=["text=utterance", "label=intent"])
    assert found == expected(SINGLE, "classification", tmp_path)


def test_columns_by_number_of_a_table_without_header(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text(table(SINGLE, names=False), newline="")
    found = digest(tmp_path, "classification", columns=["text=1", "label=2"])
    assert found == expected(SINGLE, "classification", tmp_path)


def test_columns_by_number_of_a_table_that_semicolons_separate(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text(table(SINGLE, ";", names=False), newline="")
    found = digest(tmp_path, "classification", columns=["text=1", "label=2"])
    assert found == expected(SINGLE, "classification", tmp_path)


def iob1(tags: Sequence[str]) -> list[str]:
    before = ["O", *tags]
    return [
        f"I-{tag[2:]}" if tag[0] == "B" and before[i][2:] != tag[2:] else tag
        for i, tag in enumerate(tags)
    ]


def bioes(tags: Sequence[str]) -> list[str]:
    after = [*tags[1:], "O"]
    ends = {"B": "S", "I": "E"}
    return [
        tag if tag == "O" or after[i].startswith("I-") else f"{ends[tag[0]]}-{tag[2:]}"
        for i, tag in enumerate(tags)
    ]


@pytest.mark.parametrize("scheme", [list, iob1, bioes])
@pytest.mark.parametrize("separator", [" ", "\t", " NN x "])
def test_conll_of_every_scheme_becomes_bio(
    scheme: Callable[[Sequence[str]], list[str]], separator: str, tmp_path: Path
) -> None:
    start = "-DOCSTART- -X- -X- O\n\n" if separator == " NN x " else ""
    text = start + "# sent_id = 1\n" + conll(TAGGED, separator, scheme)
    (tmp_path / "train.conll").write_text(text)
    assert digest(tmp_path, "tagging") == expected(TAGGED, "tagging", tmp_path)


def test_conll_in_io_has_one_span_for_each_run(tmp_path: Path) -> None:
    text = conll(TAGGED[:2], tags=lambda tags: [tag.replace("B-", "I-") for tag in tags])
    (tmp_path / "train.txt").write_text(text)
    assert digest(tmp_path, "tagging") == expected(TAGGED[:2], "tagging", tmp_path)


def test_conll_columns_by_number_and_by_name(tmp_path: Path) -> None:
    lines = conll(TAGGED, "\tNN\t")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "train.conll").write_text(
        "\n".join(f"0\t{line}\tx" if line else "" for line in lines.split("\n"))
    )
    numbers = ["tokens=2", "labels=4"]
    assert digest(tmp_path / "a", "tagging", columns=numbers) == expected(
        TAGGED, "tagging", tmp_path
    )
    (tmp_path / "b").mkdir()
    header = "# global.columns = ID FORM POS NER X\n"
    (tmp_path / "b" / "train.conllup").write_text(
        header + (tmp_path / "a" / "train.conll").read_text()
    )
    names = ["tokens=FORM", "labels=NER"]
    assert digest(tmp_path / "b", "tagging", columns=names) == expected(TAGGED, "tagging", tmp_path)


def test_conllu_leaves_out_what_is_no_token(tmp_path: Path) -> None:
    def line(number: str, form: str, ner: str) -> str:
        return "\t".join((number, form, *("_" * 7), ner)) + "\n"

    text = "# text = Anna zum Tor\n" + line("1", "Anna", "B-PER")
    text += line("2-3", "zum", "_") + line("2", "zu", "O") + line("3", "dem", "O")
    (tmp_path / "train.conllu").write_text(text + line("3.1", "x", "_") + line("4", "Tor", "O"))
    (example,) = read(DataSource.of(tmp_path), "tagging")
    assert example.input.tokens == ("Anna", "zu", "dem", "Tor")
    assert example.label == ("B-PER", "O", "O", "O")


GLUE = {
    "CoLA": (
        'gj04\t1\t\tA "b c\ngj04\t0\t*\tThem goes.\n',
        [('A "b c', None, 1), ("Them goes.", None, 0)],
    ),
    "SST-2": (
        'sentence\tlabel\n"a fine film \t1\nbad\t0\n',
        [('"a fine film ', None, 1), ("bad", None, 0)],
    ),
    "MRPC": (
        '\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t7\t8\t"He said\tHe said so\n',
        [('"He said', "He said so", 1)],
    ),
    "STS-B": (
        (
            "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore\n"
            "0\tm\tM\t2012\t1\tn\tn\tA plane.\tAn air plane.\t4.5\n"
        ),
        [("A plane.", "An air plane.", 4.5)],
    ),
    "QQP": (
        "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n1\t2\t3\tWho?\tWhat?\t0\n",
        [("Who?", "What?", 0)],
    ),
    "MNLI": (
        "index\tpromptID\tsentence1\tsentence2\tlabel1\tgold_label\n0\t1\tA.\tB.\tneutral\tneutral\n",
        [("A.", "B.", "neutral")],
    ),
    "QNLI": (
        "index\tquestion\tsentence\tlabel\n0\tWhen?\tIn May.\tentailment\n",
        [("When?", "In May.", "entailment")],
    ),
    "RTE": (
        "index\tsentence1\tsentence2\tlabel\n0\tA.\tB.\tnot_entailment\n",
        [("A.", "B.", "not_entailment")],
    ),
}


@pytest.mark.parametrize("task", GLUE)
def test_files_of_glue_as_they_come(task: str, tmp_path: Path) -> None:
    text, rows = GLUE[task]
    name = "dev_matched.tsv" if task == "MNLI" else "dev.tsv"
    (tmp_path / name).write_text(text, encoding="utf-8")
    found = read_examples(DataSource.of(tmp_path))
    assert [(e.input.text, e.input.text_pair, e.label) for e in found] == rows


def test_torn_rows_of_glue_are_left_out_and_said(tmp_path: Path) -> None:
    text = GLUE["QQP"][0] + "2\t3\t4\tWhy is\n3\t4\t5\tHow?\t\t1\n4\t5\t6\tWhen?\tNow?\t1\n"
    (tmp_path / "train.tsv").write_text(text)
    part = read_part(DataSource.of(tmp_path), "train")
    assert [row["text"] for _, row in part.rows] == ["Who?", "When?"]
    (remark,) = part.remarks
    assert remark.startswith("2 of 4 rows are left out, torn as in GLUE")
    assert remark.endswith(f": {tmp_path}/train.tsv:3, {tmp_path}/train.tsv:4")


SOURCES = [
    {"text": "a", "label": "x", "source": "web"},
    {"text": "b", "label": "y", "source": "app"},
]


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.json", "a.parquet", "a.arrow", "saved"])
def test_other_columns_stay_with_their_rows(name: str, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    path = tmp_path / name
    rows = datasets.Dataset.from_list(SOURCES)
    if name == "a.csv":
        path.write_text(table(SOURCES), newline="")
    elif name == "a.parquet":
        rows.to_parquet(str(path))
    elif name == "a.json":
        path.write_text(json.dumps(SOURCES))
    elif name == "a.jsonl":
        support.write_jsonl(path, SOURCES)
    else:
        rows.save_to_disk(str(tmp_path / "saved"))
        if name == "a.arrow":
            (tmp_path / "saved" / "data-00000-of-00001.arrow").rename(path)
    found = read_examples(DataSource.of(path))
    assert [(e.input.text, e.label, e.columns) for e in found] == [
        (row["text"], row["label"], {"source": row["source"]}) for row in SOURCES
    ]


def test_comments_of_conll_are_columns_of_their_sentence(tmp_path: Path) -> None:
    comments = "# source = web\n", "# source = app\n# text = not this\n", ""
    blocks = (conll([row]) for row in TAGGED)
    text = "\n".join(comment + block for comment, block in zip(comments, blocks, strict=True))
    (tmp_path / "dev.conll").write_text(text)
    found = read_examples(DataSource.of(tmp_path))
    assert [e.columns for e in found] == [{"source": "web"}, {"source": "app"}, {}]


def test_the_rows_of_a_json_object_are_those_of_its_list(tmp_path: Path) -> None:
    text = '{"meta": {"data": [1], "n": "data"}, "n": "data", "caf\\u00e9": [{"text": "a", "label": "x"}]}'
    (tmp_path / "dev.json").write_text(text)
    (example,) = read_examples(DataSource.of(tmp_path))
    assert (example.input.text, example.label) == ("a", "x")


def test_classes_of_datasets_have_their_names(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_dict(
        {"text": ["a", "b"], "label": [1, 0], "ner": [[0], [1]], "words": [["x"], ["y"]]},
        features=datasets.Features(
            {
                "text": datasets.Value("string"),
                "label": datasets.ClassLabel(names=["no", "yes"]),
                "ner": datasets.List(datasets.ClassLabel(names=["O", "B-X"])),
                "words": datasets.List(datasets.Value("string")),
            }
        ),
    )
    datasets.DatasetDict({"train": rows, "validation": rows, "odd": rows}).save_to_disk(
        str(tmp_path)
    )
    assert [e.label for e in read_examples(DataSource.of(tmp_path))] == ["yes", "no"]
    assert [e.label for e in read_examples(DataSource.of(tmp_path, splits=["odd"]))] == [
        "yes",
        "no",
    ]
    first = read_part(DataSource.of(tmp_path), "train").rows[0]
    assert first == (f"{tmp_path}[train]: row 1", {"text": "a", "label": "yes"})
    tagged = DataSource.of(tmp_path, columns=["tokens=words", "labels=ner"])
    assert read_part(tagged, "train").rows[0][1]["labels"] == ["O"]
    with pytest.raises(DataError, match="has no split 'test'; it has train, validation, odd"):
        read_examples(DataSource.of(tmp_path, splits=["test"]))
    with pytest.raises(DataError, match="has no column 'intent'; it has text, label, ner, words"):
        read_examples(DataSource.of(tmp_path, columns=["label=intent"]))


def test_a_part_may_be_in_shards_and_have_another_name(tmp_path: Path) -> None:
    for number, row in enumerate(SINGLE):
        support.write_jsonl(tmp_path / f"validation-{number:05}-of-00004.jsonl", [row])
    assert [e.label for e in read_examples(DataSource.of(tmp_path))] == [r["label"] for r in SINGLE]
    support.write_jsonl(tmp_path / "gold.jsonl", SINGLE[:1])
    assert len(read_examples(DataSource.of(tmp_path, splits=["dev=gold"]))) == 1


# Malformed data

ROW = '{"text": "a", "label": "x"}\n'
MALFORMED: list[tuple[str, str | bytes, str, dict[str, Any]]] = [
    # name, content, what it is told after the path, options
    ("a.csv", "", ":1: is empty; expected the names of the columns", {}),
    ("a.csv", "words,label\na,x\n", ": has no column 'text', nor 'tokens'; it has words, label", {}),
    ("a.csv", "text,intent\na,x\n", ": has no column 'label', nor 'labels'; it has text, intent", {}),
    ("a.csv", "text,label\n", ": holds no examples; expected one a row", {}),
    ("a.csv", "text,text,label\na,b,x\n", ": has two columns 'text'", {}),
    ("a.csv", "text,label\na,x\nb\n", ":3: has 1 cells, and the header has 2; mend the row", {}),
    ("a.csv", "text,label\na,x,y\n", ":2: has 3 cells, and the header has 2; mend the row", {}),
    ("a.csv", "text,label\n,x\n", ":2: column 'text' is empty; fill it, or leave the row out", {}),
    ("a.csv", "q,label\n ,x\n", ":2: column 'q' is empty; fill it", {"columns": ["text=q"]}),
    ("a.csv", "text,label\na,\n", ":2: .*found 'label': null; leave the row out, or label it", {}),
    ("a.csv", 'text,label\n"a,x\nb,y\n', ":2: not CSV (.*); mend the row", {}),
    ("a.csv", 'text,label\n"a\nb",y\n"c"d,z\n', ":4: not CSV (.*); mend the row", {}),
    ("a.csv", 'text,label\n"a,x\nb"\nc,z\n', ":2: has 1 cells, and the header has 2; mend the row", {}),
    ("a.tsv", 'text\tlabel\n"a\tx\nb"\ty\n', ":2: a quotation mark opens here and closes 1 lines below", {}),
    ("a.csv", 'text,labels\na,"joy, fear"\n', ":2: column 'labels': 'joy, fear' is no list; write it as JSON", {}),
    ("a.csv", 'tokens,labels\n"[""a""]","[""O"",""O""]"\n', ":2: 1 tokens but 2 labels", {}),
    ("a.csv", "text,label\na,x\n", ": has no column 'intent'; it has text, label", {"columns": ["label=intent"]}),
    ("a.csv", b"text,label\ncaf\xe9,x\n", ":2: column 4 cannot be read as UTF-8 text (.*); say which encoding", {}),
    ("a.csv", "text,label\na,x\n".encode("utf-16-le"), ":1: holds NUL characters, as UTF-16 without", {}),
    ("a.csv", b"PK\x03\x04rest", ": is a zip archive, or a spreadsheet: save it as CSV", {}),
    ("a.json", '[{"text": "a", "label": "x"},\n {"text": "b"', ":2: column 14: not JSON (.*); expected a list", {}),
    ("a.json", '[{"text": "a", "label": "x"},\n\n {"text": "b", "text": "c"}]', ":3: the key 'text' stands twice", {}),
    ("a.json", '[{"text": "a", "label": "x"}\n {}]', ":2: column 2: not JSON (Expecting ',' delimiter)", {}),
    ("a.json", '[{"text": "a", "label": "x"},\n 3]', ":2: found '3'; expected a list of objects", {}),
    ("a.json", '[{"text": "a", "label": "x"}] x', ":1: column 31: not JSON (Extra data)", {}),
    ("a.json", '{"a": [], "b": []}', ": is an object with 2 lists (a, b); expected a list of objects", {}),
    ("a.jsonl", ROW + '{"text": "b", label: "y"}\n', ":2: not JSON (.*); expected JSON lines", {}),
    ("a.jsonl", ROW + "[1]\n", ":2: expected a text with its label, as an object; found '[1]'", {}),
    ("a.jsonl", ROW + '{"text": "", "label": "y"}\n', ":2: the text is empty", {}),
    ("a.jsonl", ROW + '{"text": "b"}\n', ":2: expected 'label' (.*); found 'text'", {}),
    ("a.jsonl", ROW + '{"text": "b", "label": ["y"]}\n', ":2: .*which belongs into 'labels'", {}),
    ("a.jsonl", ROW + '{"text": "b", "label": true}\n', ':2: .*write names ("yes", "no") or 0 and 1', {}),
    ("a.jsonl", ROW, ": no row has 'q' for 'text'; the first has text, label", {"columns": ["text=q"]}),
    ("a.conll", "a O\nb B-X\n\nc\n", ":4: has 1 columns, and the first token has 2; expected a token", {}),
    ("a.conll", "a O\nb I X\n", ":2: has 3 columns, and the first token has 2; expected a token", {}),
    ("a.conll", "a\nb\n", ":1: has one column; expected a token and its tag a line", {}),
    ("a.conll", "a\tO\n\tO\n", ":2: column 1: the token is empty; expected", {}),
    ("a.conll", "\n\n", ": holds no tokens; expected a token and its tag a line", {}),
    ("a.conll", "a O\n", ":1: has 2 columns, and none of number 4 for 'labels'", {"columns": ["labels=4"]}),
    ("a.conll", "a O\n", ":1: has no column 'NER' for 'labels'; .* a number from 1 to 2", {"columns": ["labels=NER"]}),
    ("a.conll", "a O\n", ":1: tokens and labels are both column 2; name another", {"columns": ["tokens=2"]}),
    ("a.conll", "a O\n", ": is CoNLL, which has no column for 'text'; name those of", {"columns": ["text=1"]}),
    ("a.parquet", "text,label\n", ": is no Parquet file", {}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "told", "options"), MALFORMED)
def test_malformed_data_are_told_where_and_what_to_do(
    name: str, content: str | bytes, told: str, options: dict[str, Any], tmp_path: Path
) -> None:
    if name == "a.parquet":
        pytest.importorskip("pyarrow")
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    pattern = told.replace("(", r"\(").replace(")", r"\)").replace("[", r"\[").replace("|", r"\|")
    with pytest.raises(DataError, match=pattern) as caught:
        read_examples(DataSource.of(path, **options))
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize(
    ("data", "options", "told"),
    [
        ("a", {"columns": ["text"]}, "expected FIELD=NAME, for example text=utterance"),
        (
            "a",
            {"columns": ["word=x"]},
            "'word' is no field; expected one of text, text_pair, tokens",
        ),
        ("a", {"columns": ["text=a", "text=b"]}, "the column of 'text' is named twice"),
        ("a", {"encoding": "latin-99"}, "'latin-99' is no encoding of text; expected for example"),
        ("a", {"splits": ["test=x"]}, "expected train=NAME or dev=NAME"),
        ("hf://a b", {}, "is no data set of the hub; expected hf://ORG/NAME"),
    ],
)
def test_what_is_said_of_data_is_checked(data: str, options: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        DataSource.of(data, **options)


def test_a_data_set_of_the_hub_is_asked_for_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets")
    files = {
        split: str(support.write_jsonl(tmp_path / f"{split}.jsonl", rows))
        for split, rows in (("train", SINGLE), ("validation", SINGLE[:2]))
    }
    real, asked = datasets.load_dataset, []

    def from_hub(*args: object, **options: object) -> object:
        asked.append((args, options))
        return real("json", data_files=files, cache_dir=str(tmp_path / "cache"))

    monkeypatch.setattr(datasets, "load_dataset", from_hub)
    source = DataSource.of("hf://org/calls/small@v1")
    assert len(read_part(source, "train").rows) == 5
    assert [e.label for e in read_examples(source)] == ["alarm", "music"]
    assert check_data(source).rows == {"train": 5, "dev": 2}
    plan = plan_outputs(["hf://org/calls/small@v1"], tmp_path / "out")
    assert [file.name for file in plan] == ["json-train.parquet", "json-validation.parquet"]
    assert asked == [(("org/calls", "small"), {"revision": "v1"})]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org" / "calls").mkdir(parents=True)
    with pytest.raises(DataError, match="here lies org/calls, which datasets would read instead"):
        read_part(source, "train")


def test_files_of_two_formats_are_not_chosen_from(tmp_path: Path) -> None:
    (tmp_path / "dev.csv").write_text("text,label\na,x\n")
    (tmp_path / "dev.tsv").write_text("text\tlabel\na\tx\n")
    with pytest.raises(CentraError, match=r"dev\.csv and dev\.tsv could each be 'dev'; leave one"):
        read_examples(DataSource.of(tmp_path))
    assert len(read_examples(DataSource.of(tmp_path, splits=["dev.csv"]))) == 1


def test_an_address_of_the_hub_has_its_parts() -> None:
    data = DataSource.of("hf://nyu-mll/glue/mrpc@main")
    assert vars(data.place) == {"name": "nyu-mll/glue", "config": "mrpc", "revision": "main"}
    assert str(data) == "hf://nyu-mll/glue/mrpc@main"
