"""What ``--json`` prints: each command says which document, prints that one, and the page tells of it.

With ``RECORD_EXAMPLES=FILE`` in the environment, what the commands print here is written to the file.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import pytest

import cli
from registry.documents.base import SCHEMA_VERSION, Document
from tests import json_page
from tests.cli.helpers import centra, nearly_right_rows
from tests.serving.fake import FakeServer, running, whole
from tests.support import ROOT, make_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.json_page import Printed

QUICK = "--backbone tiny --data data --epochs 1 --batch-size 16 --learning-rate 3e-3"
COMMANDS = f"""\
backbone register wide roberta
backbone list
backbone show tiny
backbone status
backbone retire wide@1
backbone restore wide@1
data check data --backbone tiny
data split data/train.jsonl --output parts
train --task topic --tap 1 --depth 1 {QUICK}
search --task topic --min-layers 2 --jobs 1 {QUICK}
distill --task topic --teacher topic-search/teacher.safetensors --layers 1 {QUICK}
select --scores topic-search/trials.csv --threshold 1
fit topic.toml --jobs 1
task register topic topic-fit/topic.safetensors
task calibrate intent --data rows.jsonl --precision 0.5
task update intent intent-update.safetensors
task redefine intent intent-redefinition.safetensors
task pin intent@1.2
task retire topic
task restore topic
task diff intent@1.0 intent --data few.jsonl
task history intent
compose --release
release list
release show 2
release graph 2
release diff 1 2
release verify 2
release sign 2 --key release.pem
release evaluate 2 --task intent --data data
release evaluate --report report.html 2 --task intent --data few.jsonl
release evaluate --slice source 2 --task intent --data few.jsonl
release pull 2 --output pulled
release export 2 --format onnx --output merged
task export intent --format onnx --output intent
task list
task show intent@1.2
policy apply
policy show
policy history
promote 1 --to production
promote 2 --to production
rollback production
channel move staging 2
channel list
channel show staging
channel history production
channel sync
predict 'wake me up at seven'
predict --output answers --input calls.jsonl
bench 2 --batch 1 --length 8 --rounds 1 --threads 1
bench --url URL --rate 50 --clients 2 --for 1s --warm-up 0s
export intent.tar --task intent
import intent.tar
store show
store copy mirror
store adopt
gc --grace 0s
audit
audit verify
audit accept
audit guard
doctor
store move moved
"""
"""In this order, in the registry of the fixtures; every command that has ``--json``. URL is a server's."""

RECIPE = """\
task = "topic"
backbone = "tiny"
data = "data"

[search]
layers = [2, 2]
learning_rates = [3e-3]

[training]
epochs = 1
batch_size = 16

[distill]
layers = [1]

[select]
threshold = 1
"""
SHOWN = "http://127.0.0.1:8080"
"""What stands for the server's address in the examples."""
WITHOUT_JSON = {
    "init",
    "db upgrade",
    "db check",
    "db current",
    "completion",
    "demo",
    "serve",
    "token add",
}


@pytest.fixture
def prepared(
    home: Path,
    modules: dict[str, Path],
    make_encoder: Callable[[str], Path],
    tiny_data: Callable[[str], Path],
    small_floor: None,
) -> Path:
    """The registry of the fixtures, with what the commands read beside it."""
    shutil.copytree(make_encoder("roberta"), home / "roberta")
    shutil.copytree(tiny_data("single"), home / "data")
    for what in ("intent update", "intent redefinition"):
        shutil.copy(modules[what], home / modules[what].name)
    (home / "calls.jsonl").write_text('{"id": 1, "text": "wake me up at seven"}\n')
    nearly_right_rows(home / "rows.jsonl")
    few = ("wake me up", "alarm"), ("play a song", "music")
    rows = [{"text": text, "label": label, "source": "web"} for text, label in few]
    (home / "few.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (home / "topic.toml").write_text(RECIPE)
    with (home / "centra.toml").open("a") as file:
        file.write("\n[channels.production]\nmax_layers = 12\n")
    make_key(home / "release.pem")
    return home


def entries() -> dict[str, Printed]:
    return {entry.command: entry for entry in json_page.printed()}


def leaves(group: click.Group, *path: str) -> Iterator[str]:
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        if isinstance(command, click.Group):
            yield from leaves(command, *path, name)
        else:
            yield " ".join((*path, name))


def command_of(words: list[str]) -> str:
    """The command that some words call."""
    return next(found for n in (3, 2, 1) if (found := " ".join(words[:n])) in entries())


def documents(entry: Printed, text: str) -> list[Any]:
    """The documents that a command printed."""
    if entry.form == "lines":
        return [json.loads(line) for line in text.splitlines()]
    printed = json.loads(text)
    assert isinstance(printed, list) is (entry.form == "array")
    return printed if entry.form == "array" else [printed]


def check(model: Any, document: Any) -> None:
    """A document is of its model, and has nothing that the model would not print."""
    assert model.model_validate(document).model_dump(mode="json", by_alias=True) == document


def test_every_command_but_a_few_has_json() -> None:
    assert {*leaves(cli.main)} - entries().keys() == WITHOUT_JSON


def test_every_document_has_a_schema_of_its_own() -> None:
    models = {entry.model for entry in entries().values() if issubclass(entry.model, Document)}
    schemas = {model.model_fields["schema_"].default for model in models}
    assert len(schemas) == len(models) > 30
    assert all(schema.startswith("centra/") for schema in schemas)
    assert all(schema.endswith(f"/{SCHEMA_VERSION}") for schema in schemas)
    others = {entry.command for entry in entries().values() if entry.model not in models}
    assert others == {"predict"}


@pytest.fixture
def url() -> Iterator[str]:
    with running(FakeServer(whole)) as url:
        yield url


def test_every_command_prints_the_document_that_it_names(
    prepared: Path, encoder: Path, url: str
) -> None:
    examples: dict[str, Any] = {}
    for line in COMMANDS.splitlines():
        words = [word.replace("URL", url) for word in shlex.split(line)]
        entry = entries()[command_of(words)]
        found = documents(entry, centra(*words, "--json").stdout)
        assert found, line
        for document in found:
            check(entry.model, document)
        first = found[0] if entry.form != "array" else found[:1]
        examples.setdefault(entry.command, {"words": line, "printed": first})
    assert examples.keys() == entries().keys()
    if file := os.environ.get("RECORD_EXAMPLES"):
        text = json.dumps(examples, indent=1, ensure_ascii=False) + "\n"
        text = text.replace(str(prepared), "/srv/centra").replace(str(encoder), "/srv/models/bert")
        text = text.replace(url, SHOWN).replace(" URL ", f" {SHOWN} ")
        (ROOT / file).write_text(text, encoding="utf-8")


def test_the_page_is_what_commands_and_models_give() -> None:
    examples = json.loads(json_page.EXAMPLES.read_text(encoding="utf-8"))
    written = (ROOT / "docs" / "json.md").read_text(encoding="utf-8")
    assert written == json_page.page(examples), "make docs"
    for command, entry in entries().items():
        printed = examples[command]["printed"]
        for document in printed if entry.form == "array" else [printed]:
            check(entry.model, document)


def test_another_field_is_no_part_of_a_document() -> None:
    from registry.documents.audit import RestoredGuards

    with pytest.raises(ValueError, match="surprise"):
        RestoredGuards.model_validate({"changed": False, "restored": [], "surprise": 1})
