"""What people and scripts read: model cards, filtered lists, differences, drawings."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest

from centra.formats.manifest import LayerAccount
from centra.system.files import file_digest
from cli.drawing import svg
from registry import Registry, releases
from registry.graphs import Branch, FrozenLayer, Graph, Trunk
from tests.cli.helpers import centra, edit, read, refused
from tests.registry.helpers import forge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from centra.formats.task_module import TaskModule
    from tests import support

NASTY = ("a|b", "*bold* `code`", "<b>&amp;</b>", "new\nline", "[link](x)")
TRAINING = {"data": "a" * 64, "examples": 120, "recipe": {"tap": 1, "seed": 3, "metric": None}}
KINDS = ("classification", "multilabel", "regression", "tagging")


@pytest.fixture
def updated(home: Path, modules: dict[str, Path]) -> Path:
    """The same registry, with intent@1.1 in release 2, which is ``latest``; production has 1."""
    centra("task", "update", "intent", modules["intent update"])
    centra("compose", "--release")
    centra("channel", "move", "production", "1")
    return home


@pytest.fixture
def distilled(home: Path, modules: dict[str, Path], make_module: Callable[..., TaskModule]) -> Path:
    """The same registry, with ``nasty``: odd labels, taught by intent@1.0."""
    teacher = file_digest(modules["intent"])
    make_module("multilabel", labels=NASTY, training=TRAINING, teacher=teacher).write(
        home / "nasty.safetensors"
    )
    centra("task", "register", "nasty", "nasty.safetensors")
    return home


# Model cards


def test_a_version_is_shown_as_a_card(updated: Path, tiny_data: Callable[[str], Path]) -> None:
    measured = read("release", "evaluate", "1", "--task", "intent", "--data", tiny_data("single"))
    lines = centra("task", "show", "intent@1.0").stdout.splitlines()
    assert lines[0] == "intent@1.0  the current version is 1.1 of an active task, owned by nlu"
    told = {words[0]: " ".join(words[1:]) for words in map(str.split, lines[1:]) if words}
    row = read("task", "show", "intent")["versions"][0]
    assert told["kind"] == "classification"
    assert told["takes"] == "single texts"
    assert told["gives"] == "one of 3 labels"
    assert told["backbone"] == "tiny@1, tap 1, depth 1"
    assert told["module"] == f"sha256:{row['digest']}, {row['size']:,} bytes"
    assert told["made"].endswith("UTC by nlu/ada")
    assert (told["releases"], told["channels"]) == ("1", "production")
    assert told["labels"] == "alarm, music, weather"
    assert told["reported"] == "accuracy 0.9000"
    assert f"accuracy {measured['metrics']['accuracy']:.4f}" in told["measured"]
    assert " rows have an error; the expected calibration error is 0." in told["all"]
    text = " ".join(" ".join(lines).split())
    assert f"in release 1, {measured['examples']} examples, sha256:{measured['data'][:12]}" in text
    assert (
        lines[0].replace("1.0  the current version is 1.1", "1.1  the current version")
        == (centra("task", "show", "intent@1.1").stdout.splitlines()[0])
    )


def test_the_weakest_labels_of_a_card_are_those_that_the_data_have(home: Path) -> None:
    (home / "rows.jsonl").write_text('{"text": "a song", "label": "music"}\n')
    centra("release", "evaluate", "1", "--task", "intent", "--data", home / "rows.jsonl")
    lines = centra("task", "show", "intent@1.0").stdout.splitlines()
    told = {words[0]: " ".join(words[1:]) for words in map(str.split, lines) if words}
    assert told["confused"].startswith("music → ")
    assert told["weakest"] == "music 0.000 (0 of 1)"


def test_a_card_tells_training_and_teacher(distilled: Path) -> None:
    text = centra("task", "show", "nasty@1.0").stdout
    assert "gives      any of 5 labels, from a probability of 0.5\n" in text
    assert f"data       {'a' * 64}\n" in text
    assert "recipe     seed 3, tap 1\n" in text
    assert "teacher    intent@1.0, sha256:" in text
    assert "new line" in text  # Nothing that a label holds breaks a line.


def test_the_json_of_a_version_keeps_its_fields_and_adds_the_card(distilled: Path) -> None:
    whole, card = read("task", "show", "nasty"), read("task", "show", "nasty@1.0")
    assert {**card, "card": None} == whole
    assert list(whole) == ["task", "name", "team", "state", "current", "versions", "card"]
    (intent,) = read("task", "show", "intent")["versions"]
    assert card["card"] == {
        "evaluations": [],
        "releases": [],
        "int8": [],
        "channels": [],
        "source": None,
        "threshold": 0.5,
        "rejection": None,
        "pooling": "first",
        "template": "{text}",
        "max_length": None,
        "crf": False,
        "training": TRAINING,
        "teacher": {"digest": intent["digest"], "versions": ["intent@1.0"]},
        "remark": None,
    }


def test_a_card_is_written_as_markdown(updated: Path, tiny_data: Callable[[str], Path]) -> None:
    measured = read("release", "evaluate", "1", "--task", "intent", "--data", tiny_data("single"))
    text = centra("task", "show", "intent@1.0", "--markdown").stdout
    assert text.startswith("# intent@1.0\n\nTakes single texts and gives one of 3 labels. ")
    assert [line for line in text.splitlines() if line.startswith("## ")] == (
        ["## Metrics", "## What it gets wrong", "## Training", "## Labels"]
    )
    facts, metrics, scores, *_, labels = tables(text)
    assert dict(facts[1:])["backbone"] == "tiny@1, tap 1, depth 1"
    assert dict(facts[1:])["channels"] == "production"
    assert metrics[1] == ["accuracy", "0.9000", "its maker", "dev set"]
    own = {row[0]: row[1] for row in metrics[2:]}
    escaped = {name.replace("_", "\\_"): f"{v:.4f}" for name, v in measured["metrics"].items()}
    assert own == escaped
    assert scores[0] == ["label", "wanted", "answered", "right", "precision", "recall", "F1"]
    wanted = sum(int(row[1]) for row in scores[1:])
    right = sum(int(row[3]) for row in scores[1:])
    assert (wanted, right / wanted) == (
        measured["examples"],
        pytest.approx(measured["metrics"]["accuracy"], abs=1e-6),
    )
    assert (
        f"{wanted - right} of {wanted} rows have an error; the expected calibration error" in text
    )
    (kept,) = read("task", "show", "intent@1.0")["card"]["evaluations"]
    assert (kept["report"]["errors"], kept["report"]["all"]["rows"]) == (wanted - right, wanted)
    assert labels[1:] == [["0", "alarm"], ["1", "music"], ["2", "weather"]]


def test_no_label_breaks_the_markdown(distilled: Path) -> None:
    text = centra("task", "show", "nasty@1.0", "--markdown").stdout
    labels = tables(text)[-1][1:]
    assert [number for number, _ in labels] == ["0", "1", "2", "3", "4"]
    plain = [label.replace("\\", "") for _, label in labels]
    assert plain == [" ".join(label.split()) for label in NASTY]
    for _, label in labels:
        bare = label
        for sign in "\\|*`<>&[]":
            bare = bare.replace(f"\\{sign}", "")
        assert not set(bare) & set("\\|*`<>&[]")


def test_markdown_without_a_version_is_the_card_of_the_current_one(updated: Path) -> None:
    text = centra("task", "show", "intent", "--markdown").stdout
    assert text == centra("task", "show", "intent@1.1", "--markdown").stdout
    assert text.startswith("# intent@1.1\n")
    assert "## Training\n\nNone.\n" in text
    refused("task", "show", "intent", "--markdown", "--json", code=2, says="exclude each other")


def test_a_task_is_shown_without_a_store_and_a_card_says_what_it_lacks(
    distilled: Path, tmp_path: Path
) -> None:
    nowhere = ("--store", tmp_path / "nowhere")
    for options in ((), ("--json",)):
        shown = centra(*nowhere, "task", "show", "nasty", *options)
        assert (shown.stdout, shown.stderr) == (
            centra("task", "show", "nasty", *options).stdout,
            "",
        )
    card = centra(*nowhere, "task", "show", "nasty@1.0")
    assert "the module cannot be read, so training and teacher are not known: blob" in card.stderr
    assert "labels     a|b" in card.stdout
    assert "teacher" not in card.stdout
    fields = read(*nowhere, "task", "show", "nasty@1.0")["card"]
    assert (fields["teacher"], fields["training"]) == (None, {})
    assert "is missing" in fields["remark"]
    text = centra(*nowhere, "task", "show", "nasty@1.0", "--markdown").stdout
    assert "## Training\n\nNot known: the store could not give the module.\n" in text


def tables(markdown: str) -> list[list[list[str]]]:
    """The tables of a document: rows of cells, as a reader of Markdown splits them."""
    found: list[list[list[str]]] = []
    for block in markdown.split("\n\n"):
        lines = block.strip().splitlines()
        if lines and lines[0].startswith("|"):
            rows = [cells(line) for line in lines if not line.startswith("| ---")]
            assert {len(row) for row in rows} == {len(rows[0])}
            found.append(rows)
    return found


def cells(line: str) -> list[str]:
    """Split at each ``|`` that no backslash stands before."""
    parts, escaped = [""], False
    for letter in line:
        if letter == "|" and not escaped:
            parts.append("")
        else:
            parts[-1] += letter
        escaped = letter == "\\" and not escaped
    return [part.strip() for part in parts[1:-1]]


# Lists


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (("--metric", "accuracy>=0.9", "--metric", "accuracy<0.96"), ["intent"]),
        (("--metric", "accuracy>0.95"), []),
        (("--metric", "accuracy=0.95"), ["intent"]),
        (("--metric", "macro_f1<=0.5"), ["intent"]),
        (("--since", "2026-11-02"), ["same", "slots"]),
        (("--since", "2026-11-01T12:00", "--until", "2026-11-02T13:00+01:00"), ["intent"]),
        (("--until", "2026-11-01"), []),
        (("--sort", "created"), ["intent", "same", "slots"]),
        (("--sort", "created", "--reverse"), ["slots", "same", "intent"]),
        (("--sort", "team"), ["slots", "intent", "same"]),
        (("--sort", "accuracy"), ["intent", "same", "slots"]),
        (("--reverse",), ["slots", "same", "intent"]),
        (("--limit", "2"), ["intent", "same"]),
        (("--limit", "2", "--page", "2"), ["slots"]),
        (("--limit", "2", "--page", "3"), []),
        (("--team", "nlu", "--kind", "classification", "--metric", "accuracy>0"), ["intent"]),
    ],
)
def test_tasks_are_filtered_sorted_and_paged(
    updated: Path, options: tuple[str, ...], names: list[str]
) -> None:
    for day, task in enumerate(("intent", "same", "slots"), 1):
        edit(
            updated,
            f"UPDATE task_versions SET created_at = '2026-11-0{day} 12:00:00.000000' WHERE "
            f"current_of = (SELECT id FROM tasks WHERE name = '{task}')",
        )
    assert [row["task"] for row in read("task", "list", *options)] == names
    lines = centra("task", "list", *options).stdout.splitlines()[1:]
    assert [line.partition("@")[0] for line in lines] == names


def test_a_page_says_whether_there_are_more(updated: Path) -> None:
    for noun, rows in (("task", 3), ("release", 2)):
        first = centra(noun, "list", "--limit", "1")
        assert first.stderr == "there are more; see: --page 2\n"
        assert len(first.stdout.splitlines()) == 2
        last = centra(noun, "list", "--limit", "1", "--page", str(rows))
        assert (last.stderr, len(last.stdout.splitlines())) == ("", 2)
        assert centra(noun, "list", "--limit", str(rows)).stderr == ""
        assert read(noun, "list", "--limit", "1", "--page", str(rows + 1)) == []


def test_a_metric_to_sort_by_that_nothing_reports_is_remarked_on(updated: Path) -> None:
    result = centra("task", "list", "--sort", "acuracy")
    assert "none of these reports the metric 'acuracy'" in result.stderr
    assert centra("task", "list", "--sort", "accuracy").stderr == ""


def test_releases_channels_and_backbones_are_filtered(updated: Path) -> None:
    def numbers(*options: str) -> list[int]:
        return [row["release"] for row in read("release", "list", *options)]

    def serving(*options: str) -> list[str]:
        return [row["channel"] for row in read("channel", "list", *options)]

    assert numbers("--task", "intent@1.0") == numbers("--channel", "production") == [1]
    assert numbers("--task", "slots") == numbers("--since", "1h") == [2, 1]
    assert numbers("--until", "1h") == numbers("--since", "1h", "--until", "1h") == []
    assert serving("--task", "intent@1.1") == serving("--release", "2") == ["latest"]
    assert serving("--task", "same", "--since", "1d") == ["latest", "production"]
    assert serving("--until", "1d") == []
    assert len(read("backbone", "list", "--state", "active", "--family", "bert")) == 1
    assert read("backbone", "list", "--state", "retired") == []
    assert read("backbone", "list", "--family", "roberta") == []


@pytest.mark.parametrize(
    ("command", "code", "says"),
    [
        ("task list --page 2", 2, "--page needs --limit"),
        ("task list --limit 0", 2, "--limit"),
        ("task list --limit many", 2, "--limit"),
        ("task list --limit 2 --page 0", 2, "--page"),
        ("task list --since yesterday", 2, "expected for example 2026-11-01"),
        ("task list --metric f1=>1", 2, "expected NAME>=VALUE"),
        ('task list --sort a"b', 2, "quotes"),
        ("release list --page 2", 2, "--page needs --limit"),
        ("release list --channel nope", 3, "centra channel list"),
        ("release list --task nope", 3, "there is no task 'nope'"),
        ("release list --task ../x", 2, "is not a valid task name"),
        ("channel list --release 9", 3, "there is no release '9'"),
        ("channel list --task intent@7.0", 3, "it has 1.0"),
        ("backbone list --state gone", 2, "'active', 'retired'"),
        ("release graph 9", 3, "there is no release '9'"),
        ("release graph 1 --output model.png", 2, "a name that ends in .svg"),
        ("release graph 1 --output centra.toml/x.svg", 4, "cannot write"),
    ],
)
def test_what_cannot_be_read_is_refused(home: Path, command: str, code: int, says: str) -> None:
    refused(*command.split(), code=code, says=says)


# Differences


def test_a_difference_of_tasks_names_the_tensors_layer_by_layer(updated: Path) -> None:
    lines = centra("task", "diff", "intent@1.0", "intent").stdout.splitlines()
    assert "  head: dense.bias, dense.weight, out.bias, out.weight" in lines
    names = " ".join(lines[lines.index("  probe: logits") - 8 :])
    found = read("task", "diff", "intent@1.0", "intent")["tensors_changed"]
    assert sum(name.startswith("layers.1.") for name in found) == 16
    for name in found:
        assert name.removeprefix("layers.1.").removeprefix("head.").removeprefix("probe.") in names


def test_a_difference_of_releases_says_what_moved_and_names_the_tensors(
    home: Path, make_module: Callable[..., TaskModule]
) -> None:
    make_module(tap=2, depth=0, labels=("alarm", "snow", "music")).write(home / "m.safetensors")
    centra("task", "redefine", "intent", "m.safetensors")
    centra("compose", "--release")
    lines = [line.strip() for line in centra("release", "diff", "1", "2").stdout.splitlines()]
    start = lines.index("redefined  intent 1.0 → 2.0")
    assert lines[start + 1 : start + 4] == [
        "tap 1 → 2, depth 1 → 0",
        "labels added: snow",
        "labels removed: weather",
    ]
    assert lines[start + 4].startswith("tensors  ")
    assert any(line.startswith("layers.1: attention.output.LayerNorm.bias, ") for line in lines)
    (module,) = read("release", "diff", "1", "2")["modules"]
    assert (module["tap_layer"], module["depth"], module["backbone"]) == ([1, 2], [1, 0], None)
    assert module["contract"]["added"] == ["snow"]
    assert "layers.1.output.dense.bias" in module["tensors_changed"]


def test_a_frozen_layer_that_changed_below_an_unchanged_task_fails_the_comparison(
    home: Path,
) -> None:
    registry = Registry.open()
    manifest = releases.show(registry, "1").manifest
    (trunk,) = manifest.trunks
    other = trunk.model_copy(update={"layers": (trunk.layers[0], trunk.layers[0])})
    forge(registry, manifest.model_copy(update={"trunks": (other,)}))
    registry.engine.dispose()
    result = centra("release", "diff", "1", "2", code=6)
    digest = manifest.tasks["slots"].digest
    assert f"  NOT identical slots 1.0  sha256:{digest}, but below it: layer 2\n" in result.stdout
    assert "  identical  intent 1.0" in result.stdout
    assert "Error: slots: the module is the same, but what it reads is not" in result.stderr
    found = json.loads(centra("release", "diff", "1", "2", "--json", code=6).stdout)
    assert {same["task"]: same["identical"] for same in found["unchanged"]} == (
        {"intent": True, "same": True, "slots": False}
    )


# Graphs


def test_a_release_is_drawn_in_text_and_told_as_json(
    home: Path, tiny_backbone: support.Backbone
) -> None:
    text = centra("release", "graph", "latest").stdout
    assert text.startswith("release 1  2 shared + 4 own = 6 layers, 66.7% of 9 ")
    assert centra("release", "show", "1").stdout.endswith(text.partition("\n\n")[2])
    assert f"backbone tiny@1 {tiny_backbone.spec.digest[:12]} (layers 1 to 3)\n" in text
    found = read("release", "graph", "latest")
    assert (found["release"], found["layers"]["total"]) == (1, 6)
    (trunk,) = found["trunks"]
    layers = tiny_backbone.spec.layers
    assert trunk["layers"] == [
        {"number": 1, "digest": layers[0]},
        {"number": 2, "digest": layers[1]},
        {"number": 3, "digest": None},
    ]
    assert [(b["task"], b["tap_layer"], b["depth"]) for b in trunk["branches"]] == [
        ("intent", 1, 1),
        ("same", 1, 2),
        ("slots", 2, 1),
    ]


def test_a_release_is_drawn_into_a_file(home: Path) -> None:
    result = centra("release", "graph", "1", "--output", "deep/model.svg")
    assert result.stdout == "deep/model.svg\n"
    drawing = (home / "deep" / "model.svg").read_text(encoding="utf-8")
    again = read("release", "graph", "1", "--output", "deep/model.svg")
    assert again == read("release", "graph", "1")
    assert (home / "deep" / "model.svg").read_text(encoding="utf-8") == drawing
    shown = texts(ET.fromstring(drawing))
    assert {"Release 1", "tiny@1", "layer 1", "layer 3", "intent@1.0", "slots@1.0"} <= shown
    assert {"classification of pairs, 2 labels", "tagging, 3 labels", "not needed"} <= shown
    assert any(text.startswith("2 shared + 4 own = 6 layers, ") for text in shown)


@pytest.mark.parametrize("count", [1, 3, 25, 80])
def test_a_drawing_of_many_tasks_stays_readable(count: int) -> None:
    root = ET.fromstring(svg(graph(trunk("minilm@1", 12, count))))
    shown = texts(root)
    assert {f"task-{number:02}@1.{number}" for number in range(count)} <= shown
    assert {f"layer {number}" for number in range(1, 13)} <= shown
    assert sum(text == "not needed" for text in all_texts(root)) == 12 - 6
    placed(root)


def test_two_trunks_are_drawn_side_by_side() -> None:
    drawing = svg(graph(trunk("minilm@1", 6, 3), trunk("minilm@2", 12, 9)))
    root = ET.fromstring(drawing)
    lefts = {text: x for x, _, text in positions(root) if text in ("minilm@1", "minilm@2")}
    assert lefts["minilm@1"] < lefts["minilm@2"]
    placed(root)


def test_a_drawing_needs_nothing_from_outside_and_has_a_ground_of_its_own() -> None:
    drawing = svg(graph(trunk("minilm@1", 6, 5)))
    root = ET.fromstring(drawing)
    tags = {element.tag.rpartition("}")[2] for element in root.iter()}
    assert tags <= {"svg", "title", "desc", "g", "rect", "text", "tspan", "path", "circle"}
    assert "href" not in drawing
    assert drawing.count("://") == 1  # The name of the format.
    ground = root.find("{*}rect")
    assert ground is not None
    assert (ground.get("fill"), float(ground.get("width", 0)) + 1) == (
        "#ffffff",
        float(root.get("width", 0)),
    )


def test_whatever_a_name_holds_is_text_in_a_drawing() -> None:
    odd = Branch(
        task="<script>&\"'",
        version="1.0",
        kind="odd",
        input="single",
        labels=1,
        tap_layer=0,
        depth=0,
        precision="fp32",
        digest="0" * 64,
    )
    found = graph(trunk("a<b>&", 1, 1, extra=[odd]))
    root = ET.fromstring(svg(found))
    assert {"<script>&\"'@1.0", "a<b>&"} <= texts(root)


def graph(*trunks: Trunk) -> Graph:
    layers = LayerAccount(shared=6, task=4, total=10, single_task=90, overhead=0.1111)
    return Graph(release=7, digest=digest("release"), layers=layers, trunks=list(trunks))


def trunk(backbone: str, layers: int, tasks: int, extra: list[Branch] | None = None) -> Trunk:
    """A trunk of at most six needed layers, with tasks of every kind at taps up to there."""
    needed = min(6, layers)
    branches = [
        Branch(
            task=f"task-{number:02}",
            version=f"1.{number}",
            kind=KINDS[number % 4],
            input="pair" if number % 3 == 0 and number % 4 < 3 else "single",
            labels=0 if number % 4 == 2 else number + 1,
            tap_layer=needed if number == 0 else number * 5 % (needed + 1),
            depth=number % 4,
            precision="fp32",
            digest=digest(number),
        )
        for number in range(tasks)
    ]
    return Trunk(
        backbone=backbone,
        digest=digest(backbone),
        embeddings=digest("embeddings"),
        layers=[
            FrozenLayer(number=number, digest=digest(number) if number <= needed else None)
            for number in range(1, layers + 1)
        ],
        branches=sorted([*branches, *(extra or [])], key=lambda b: (b.tap_layer, b.task)),
    )


def digest(value: object) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()


def elements(
    root: ET.Element, x: float = 0, y: float = 0
) -> Iterator[tuple[float, float, ET.Element]]:
    """Every element, with where its own coordinates count from."""
    move = root.get("transform", "translate(0 0)").removeprefix("translate(").removesuffix(")")
    right, down = map(float, move.split())
    yield x + right, y + down, root
    for child in root:
        yield from elements(child, x + right, y + down)


def positions(root: ET.Element) -> list[tuple[float, float, str]]:
    return [
        (x + float(element.get("x", 0)), y + float(element.get("y", 0)), text_of(element))
        for x, y, element in elements(root)
        if element.tag.endswith("}text")
    ]


def placed(root: ET.Element) -> None:
    """Assert that everything lies on the sheet, and that no two boxes or lines of text collide."""
    width, height = float(root.get("width", 0)), float(root.get("height", 0))
    boxes = []
    for x, y, element in elements(root):
        if element.tag.endswith("}rect"):
            left, top = x + float(element.get("x", 0)), y + float(element.get("y", 0))
            right = left + float(element.get("width", 0))
            bottom = top + float(element.get("height", 0))
            assert 0 <= left <= right <= width
            assert 0 <= top <= bottom <= height
            boxes.append((left, top, right, bottom))
    for x, y, _ in positions(root):
        assert 0 < x < width
        assert 0 < y < height
    assert len({(x, y) for x, y, _ in positions(root)}) == len(positions(root))
    for index, one in enumerate(boxes):
        for other in boxes[:index]:
            apart = (
                one[0] >= other[2] or other[0] >= one[2] or one[1] >= other[3] or other[1] >= one[3]
            )
            assert apart or within(one, other) or within(other, one)


def within(inner: tuple[float, ...], outer: tuple[float, ...]) -> bool:
    return (
        inner[0] >= outer[0]
        and inner[1] >= outer[1]
        and inner[2] <= outer[2]
        and inner[3] <= outer[3]
    )


def text_of(element: ET.Element) -> str:
    return "".join(part.strip() for part in element.itertext())


def all_texts(root: ET.Element) -> list[str]:
    return [text for _, _, text in positions(root)]


def texts(root: ET.Element) -> set[str]:
    return {*all_texts(root)}
