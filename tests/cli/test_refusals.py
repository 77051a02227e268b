"""Bad input: a clear message, the right exit code, and a registry that is as it was before."""

from __future__ import annotations

import io
import json
import pickle
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
import torch
from safetensors.torch import save

from centra.formats.task_module import TaskModule
from centra.system.files import file_digest
from registry.database.migrations import SCHEMA
from tests import support
from tests.cli.helpers import centra, edit, read, refused, state

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BOB = ("--actor", "dialog/bob")


@pytest.fixture
def unchanged(home: Path) -> Iterator[Path]:
    """The registry, which must be the same after the test."""
    before = state(home)
    yield home
    assert state(home) == before


# Module files


class Bomb:
    """Unpickled, it leaves a file in the current folder, which is the registry's."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("the pickle was run"),)


def torch_zip(module: TaskModule) -> bytes:
    buffer = io.BytesIO()
    torch.save(module.tensors, buffer)
    return buffer.getvalue()


def flipped(module: TaskModule, share: float) -> bytes:
    data = bytearray(module.to_bytes())
    data[int((len(data) - 1) * share)] ^= 0x10
    return bytes(data)


def with_tensor(module: TaskModule, name: str, tensor: torch.Tensor) -> bytes:
    return TaskModule(module.spec, {**module.tensors, name: tensor}).to_bytes()


def without_tensor(module: TaskModule, name: str) -> bytes:
    tensors = {key: tensor for key, tensor in module.tensors.items() if key != name}
    return TaskModule(module.spec, tensors).to_bytes()


def with_nan(module: TaskModule) -> bytes:
    weight = module.tensors["head.out.weight"].clone()
    weight[0, 0] = float("nan")
    return with_tensor(module, "head.out.weight", weight)


def saying(module: TaskModule, **fields: Any) -> bytes:
    """The module with another spec, and a checksum that agrees with it."""
    return TaskModule(module.spec.model_copy(update=fields), module.tensors).to_bytes()


def of_format(module: TaskModule, version: str) -> bytes:
    data = module.to_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    own = json.loads(header["__metadata__"]["centra"])
    own["spec"]["format_version"] = version
    header["__metadata__"]["centra"] = json.dumps(own)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[end:]


SPOILT: dict[str, tuple[Callable[[TaskModule], bytes], str]] = {
    "empty": (lambda _: b"", "not a readable safetensors file"),
    "cut in its header": (lambda m: m.to_bytes()[:300], "not a readable safetensors file"),
    "without its last byte": (lambda m: m.to_bytes()[:-1], "not a readable safetensors file"),
    "a flipped bit in its length": (lambda m: flipped(m, 0), "not a readable safetensors file"),
    "a flipped bit in its spec": (lambda m: flipped(m, 0.01), ""),
    "a flipped bit in its weights": (lambda m: flipped(m, 0.5), "is corrupt"),
    "a flipped bit at its end": (lambda m: flipped(m, 1), "is corrupt"),
    "a pickle": (lambda _: pickle.dumps(Bomb()), "Save the weights as safetensors"),
    "a torch zip": (torch_zip, "Save the weights as safetensors"),
    "weights alone": (lambda m: save(m.weights), "not a Centra task module"),
    "another major format": (
        lambda m: of_format(m, "2.0"),
        "format centra/task-module 2.0 is not supported; this Centra reads centra/task-module 1.x",
    ),
    "a format that is no version": (lambda m: of_format(m, "new"), "is not supported"),
    "more labels than outputs": (
        lambda m: saying(m, labels=("a", "b", "c", "d")),
        "4 labels but the head has 3 outputs",
    ),
    "a label twice": (lambda m: saying(m, labels=("a", "b", "a")), "labels must be distinct"),
    "not a number": (with_nan, "tensor head.out.weight holds 1 NaN or infinite values of 96"),
    "an infinite probe": (
        lambda m: with_tensor(m, "probe.logits", m.tensors["probe.logits"] + float("inf")),
        "tensor probe.logits holds 9 NaN or infinite values",
    ),
    "no probe": (lambda m: without_tensor(m, "probe.logits"), "tensor probe.logits is missing"),
    "more depth than layers": (
        lambda m: saying(m, depth=2),
        "depth is 2, but the file has layers [1]",
    ),
    "a tap above the backbone": (
        lambda m: saying(m, tap_layer=9),
        "taps layer 9, but tiny@1 has 3 layers",
    ),
    "layers of another width": (
        lambda m: with_tensor(m, "layers.1.intermediate.dense.bias", torch.zeros(65)),
        "tensor layers.1.intermediate.dense.bias is (65,), tiny@1 needs (64,)",
    ),
}


@pytest.mark.parametrize("what", SPOILT)
@pytest.mark.parametrize("command", ["register new", "update intent", "redefine intent"])
def test_a_file_that_is_no_sound_module_is_refused(
    unchanged: Path,
    make_module: Callable[..., TaskModule],
    tmp_path: Path,
    command: str,
    what: str,
) -> None:
    spoil, says = SPOILT[what]
    file = tmp_path / "bad.safetensors"
    file.write_bytes(spoil(make_module(seed=7)))
    refused("task", *command.split(), file, code=6, says=(f"{file}: ", says))


def test_a_module_for_an_unregistered_backbone_is_refused(
    unchanged: Path, make_module: Callable[..., TaskModule], tmp_path: Path
) -> None:
    file = tmp_path / "foreign.safetensors"
    file.write_bytes(saying(make_module(), backbone="0" * 64))
    says = ("sha256:000000000000, which is not registered here (registered: tiny@1)", "register it")
    refused("task", "register", "new", file, code=3, says=says)


def test_a_checkpoint_that_changed_a_layer_below_its_declared_tap_is_refused(
    unchanged: Path, checkpoint: Path
) -> None:
    says = ("layer 3 differs from tiny@1's", "declare a tap up to 2 or leave it out")
    refused("task", "register", "new", checkpoint, "--tap", "3", code=6, says=says)


def test_a_checkpoint_with_a_pickle_alone_is_refused(
    unchanged: Path, checkpoint: Path, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_bytes((checkpoint / "config.json").read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))
    says = ("no usable safetensors weights", "never reads pickled weights")
    refused("task", "register", "new", tmp_path, code=6, says=says)


# Commands that cannot be done

USAGE = {
    "task register ../evil {stars}": ("'../evil' is not a valid task name", "expected 1 to 63"),
    "task register a/b {stars}": "is not a valid task name",
    "task register id {stars}": "expected another than id and error, which stand beside",
    "task register error {stars}": "'error' is not a valid task name",
    "task register Evil {stars}": "is not a valid task name",
    "task register '' {stars}": "is not a valid task name",
    "task register new {stars} --team ../evil": "is not a valid team name",
    "task register new {stars} --tap 1": "is declared for checkpoint folders",
    "task register new {stars} --kind regression": "is declared for checkpoint folders",
    "task register new {stars} --labels x.txt": "is declared for checkpoint folders",
    "task register new {checkpoint} --kind tagging": "it cannot be declared tagging",
    "task register new {checkpoint} --kind other": "is not one of",
    "task register new {checkpoint} --tap 9": ("tap 9", "tiny@1 has 3 layers"),
    "task register new": "Missing argument",
    "task show ../evil": "is not a valid task name",
    "task show intent@new": ("'new' is not a valid version", "MAJOR.MINOR"),
    "task pin ../evil@1.0": "is not a valid task name",
    "task pin intent": "say which version: intent@MAJOR.MINOR",
    "task diff intent@1.0 slots@1.0": "are different tasks",
    "task list --state gone": ("--state", "'active', 'retired'"),
    "task list --kind magic": ("--kind", "'classification', 'multilabel'"),
    "task list --metric f1": "expected NAME>=VALUE",
    "task list --metric f1>=high": "expected NAME>=VALUE",
    "backbone register ../evil {encoder}": "is not a valid backbone name",
    "channel move ../evil 1": "is not a valid channel name",
    "channel move latest 1": (
        "follows the releases of the live set by itself",
        "It moves by: centra compose --release",
    ),
    "channel move 7 1": "would read as a release number",
    "compose --set intent": "intent@MAJOR.MINOR",
    "compose --set ../evil@1.0": "is not a valid task name",
    "release pull 1": "Missing option '--output'",
    "predict": "give a TEXT or --input FILE",
    "predict --input {missing}": "does not exist",
    "predict --input {jsonl} --text-pair no": "--text-pair belongs to a TEXT",
    "predict hi --release .centra/store#../evil": "is not a valid channel name",
    "predict hi --device tpu": "unknown device 'tpu'; expected cpu, cuda",
    "predict hi --dtype int8": "'fp32', 'bf16', 'fp16'",
    "bench 1 --batch 0": "'0' are no numbers: expected whole numbers from 1",
    "bench 1 --batch 1,,8": "for example 1,8,32",
    "bench 1 --length long": "'long' are no numbers",
    "bench 1 --length 8,65": "65 tokens are more than the backbone takes: at most 64",
    "bench 1 --length 2": ("exactly 2 tokens", "the shortest has 3"),
    "bench 1 --task intent --task same": "some take single texts, others pairs; bench them apart",
    "bench 1 --rounds 0": "0 is not in the range",
    "bench 1 --threads 0": "0 is not in the range",
    "bench 1 --engine tpu": "'onnx', 'torch'",
    "bench 1 --engine onnx --dtype bf16": "for 'bf16' take engine 'torch'",
    "bench 1 --engine torch --threads 2": "set OMP_NUM_THREADS instead",
    "train --task new --backbone tiny --data {data} --tap 1": "Missing option '--depth'",
    "train --task ../evil --backbone tiny --data {data} --tap 1 --depth 1": "not a valid task name",
    "train --task new --backbone tiny --data {data} --tap 4 --depth 1": (
        "tap 4: the backbone has layers 0 to 3"
    ),
    "train --task new --backbone tiny --data {data} --tap -1 --depth 1": "tap -1",
    "train --task new --backbone tiny --data {data} --tap low --depth 1": "not a valid integer",
    "train --task new --backbone tiny --data {data} --tap 2 --depth 2": (
        "depth 2: above tap 2 the backbone has 1 layers to start from"
    ),
    "train --task new --backbone tiny --data {data} --tap 2 --depth -1": "depth -1",
    "train --task new --backbone tiny --data {data} --tap 2 --depth 1 --epochs 0": (
        "epochs must be greater than 0"
    ),
    "train --task new --backbone tiny --data {data} --tap 2 --depth 1 --template query:": (
        "'query:' does not say where the text goes; write {text} there, as in 'query:{text}'"
    ),
    "task register new {jsonl} --template {{text}}. --template {{text}} --template {{text}}": (
        "is given 3 times; expected once, or twice for pairs"
    ),
    "train --task new --backbone tiny --data {data} --tap 2 --depth 1 --metric f1": (
        "no metric 'f1'; expected one of accuracy, macro_f1, matthews"
    ),
    "train --task new --backbone tiny --data {data} --tap 2 --depth 1 --output {data}": (
        "is a directory"
    ),
    "train --task new --backbone tiny --data {data} --tap 2 --depth 1 --crf": (
        "crf: a classification task has no tags to chain"
    ),
    "train --task new --backbone tiny --data {data} --tap 2 --depth 1 --feature-cache much": (
        "'much' is no size: expected for example 20GB"
    ),
    "search --task new --backbone tiny --data {data} --report-to paper": (
        "--report-to",
        "'tensorboard', 'mlflow', 'wandb'",
    ),
    "search --task new --backbone tiny --data {data} --min-layers 3 --max-layers 2": (
        "--min-layers 3 is more than --max-layers 2"
    ),
    "search --task new --backbone tiny --data {data} --max-layers 4": (
        "layers: 4 cannot be fine-tuned; the backbone has 3"
    ),
    "search --task new --backbone tiny --data {data} --max-layers 0": "layers: 0",
    "search --task new --backbone tiny --data {data} --learning-rate 0": (
        "learning_rate must be greater than 0"
    ),
    "search --task new --backbone tiny --data {data} --engine cloud": (
        "--engine",
        "'local', 'ray'",
    ),
    "search --task new --backbone tiny --data {data} --jobs 0": "jobs must be at least 1, found 0",
    "search --task new --backbone tiny --data {data} --output {jsonl}": "is a file",
    "distill --task new --backbone tiny --data {data} --layers 1": "Missing option '--teacher'",
    "distill --task new --backbone tiny --data {data} --layers 1 --teacher {checkpoint}": (
        "is a folder; a student is distilled from the file of a module",
        "centra fit RECIPE.toml --teacher CHECKPOINT",
    ),
    "distill --task new --backbone tiny --data {data} --layers 1 --teacher {missing}": (
        "does not exist"
    ),
    "distill --task new --backbone tiny --data {data} --layers 1 --teacher {stars} --weight 2": (
        "weight must lie between 0 and 1"
    ),
    "distill --task new --backbone tiny --data {data} --layers 1 --teacher {stars} "
    "--temperature 0": "temperature must be greater than 0",
    "distill --task new --backbone tiny --data {data} --layers 1 --teacher {stars} "
    "--output {stars}": (
        "the student would take its teacher's place",
        "Name another file: --output FILE",
    ),
    "fit": "Missing argument 'RECIPE.toml'",
    "fit {missing}": "cannot be read (No such file",
    "--actor ada task list": ("actor 'ada': expected TEAM/PERSON", "nlu/ada"),
    "--actor ../ada task list": "is not a valid team name",
    "--database mysql://host/centra task list": "not supported; use SQLite or PostgreSQL",
    "--database sqlite:// task list": "needs a database file",
    "--store http://host/store compose": "expected a folder or s3://BUCKET/PREFIX",
    "--store s3:// compose": "expected s3://BUCKET/PREFIX",
    "--store s3://bucket/prefix?colour=red compose": "?endpoint_url=, ?region=",
    "nonsense": "No such command 'nonsense'",
    "task nonsense": "No such command 'nonsense'",
    "compose --nonsense": "No such option '--nonsense'",
}
NOT_FOUND = {
    "task register new {missing}": "no such file or folder",
    "task register new {missing}/deeper": "no such file or folder",
    "task update nope {stars}": ("there is no task 'nope'", "centra task list"),
    "task redefine nope {stars}": "there is no task 'nope'",
    "task retire nope": "there is no task 'nope'",
    "task restore nope": "there is no task 'nope'",
    "task pin nope@1.0": "there is no task 'nope'",
    "task pin intent@9.9": "task intent has no version 9.9; it has 1.0",
    "task show nope": "there is no task 'nope'",
    "task show intent@1.9": "task intent has no version 1.9; it has 1.0",
    "task diff intent@1.0 intent@1.9": "it has 1.0",
    "task history nope": "there is no task 'nope'",
    "audit --task nope": "there is no task 'nope'",
    "backbone show nope": ("there is no backbone 'nope'", "centra backbone register"),
    "backbone show tiny@2": "there is no backbone 'tiny@2'",
    "backbone register new nope": "no such folder here",
    "compose --base nope": ("there is no release 'nope'", "centra release list"),
    "compose --set nope@1.0": "there is no task 'nope'",
    "compose --set intent@1.9": "it has 1.0",
    "release show 2": "there is no release '2'; expected a number, a channel or a digest",
    "release show nope": "there is no release 'nope'",
    "release show 0000000000": "there is no release '0000000000'",
    "release diff 1 2": "there is no release '2'",
    "release verify nope": "there is no release 'nope'",
    "release verify ./nope": "no such folder",
    "release pull 2 --output out": "there is no release '2'",
    "channel show nope": ("there is no channel 'nope'", "centra channel list"),
    "channel move production 2": "there is no release '2'",
    "predict hi --release nope": "there is no release 'nope'",
    "predict hi --release ./nope": "no such folder",
    "predict hi --release .centra/store#nope": "no channel 'nope'",
    "predict hi --task nope": "no task 'nope'; it holds intent, same, slots",
    "predict hi --release .centra/store#latest --task nope": "it holds intent, same, slots",
    "bench nope": "there is no release 'nope'",
    "bench ./nope": "no such folder",
    "bench .centra/store#nope": "no channel 'nope'",
    "bench 1 --task nope": "no task 'nope'; it holds intent, same, slots",
    "train --task new --backbone nope --data {data} --tap 1 --depth 1": "centra backbone list",
    "search --task new --backbone nope --data {data}": "centra backbone list",
    "distill --task new --backbone nope --data {data} --layers 1 --teacher {stars}": (
        "centra backbone list"
    ),
    "--store {missing} release show 1": "is missing",
    "--store {missing} predict hi": "is missing",
}
FAILED = {
    "predict ''": "the text is empty",
    "predict fine '  '": "input 2: the text is empty",
    "predict hi --task same": "task same takes a pair of texts",
    "predict hi --text-pair ho --task intent": "task intent takes a single text",
    "train --task new --backbone tiny --data {missing} --tap 1 --depth 1": (
        "there is no such folder); expected JSON lines"
    ),
    "search --task new --backbone tiny --data {missing}": "train.jsonl: no such file",
}
CONFLICT = {
    "distill --task new --backbone tiny --data {data} --layers 1 --teacher {stars}": (
        "stars.safetensors: a student keeps its teacher's kind",
        "the teacher has regression, the data classification",
    ),
}
UNVERIFIED = {
    "distill --task new --backbone tiny --data {data} --layers 1 --teacher {jsonl}": (
        "dev.jsonl: not a readable safetensors file"
    ),
}


@pytest.mark.parametrize(
    ("command", "code", "says"),
    [
        pytest.param(command, code, says, id=command)
        for code, commands in (
            (2, USAGE),
            (3, NOT_FOUND),
            (1, FAILED),
            (5, CONFLICT),
            (6, UNVERIFIED),
        )
        for command, says in commands.items()
    ],
)
def test_a_command_that_cannot_be_done_says_why(
    unchanged: Path,
    modules: dict[str, Path],
    encoder: Path,
    checkpoint: Path,
    tiny_data: Callable[[str], Path],
    tmp_path: Path,
    command: str,
    code: int,
    says: str | tuple[str, ...],
) -> None:
    places = {
        "stars": modules["stars"],
        "encoder": encoder,
        "checkpoint": checkpoint,
        "data": tiny_data("single"),
        "jsonl": tiny_data("single") / "dev.jsonl",
        "missing": tmp_path / "missing",
    }
    refused(*shlex.split(command.format(**places)), code=code, says=says)
    assert not (tmp_path / "missing").exists()


# Whose task it is, and what it promises


@pytest.mark.parametrize(
    "command",
    [
        "update intent {update}",
        "redefine intent {redefinition}",
        "retire intent",
        "restore intent",
        "pin intent@1.0",
        "register new {update} --team nlu",
    ],
)
def test_another_team_needs_force(home: Path, modules: dict[str, Path], command: str) -> None:
    if command.startswith("pin"):
        centra("task", "update", "intent", modules["intent update"])
    if command.startswith("restore"):
        centra("task", "retire", "intent")
    files = {
        "update": modules["intent update"],
        "redefinition": modules["intent redefinition"],
    }
    words = (*BOB, "task", *command.format(**files).split())
    before = state(home)
    says = ("belongs to team nlu, and you are dialog/bob", "repeat with --force")
    refused(*words, code=4, says=says)
    assert state(home) == before
    result = centra(*words, "--force")
    assert "forced: recorded in the audit log" in result.stderr
    event = read("audit")[-1]
    assert (event["created_by"], event["forced"]) == ("dialog/bob", True)


def test_nobody_in_particular_is_told_to_say_who_they_are(
    unchanged: Path, modules: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CENTRA_ACTOR")
    refused("task", "retire", "intent", code=4, says="Set CENTRA_ACTOR=nlu/YOU")
    refused("task", "register", "new", modules["stars"], code=2, says="--team TEAM")


def test_an_update_with_other_labels_is_refused_and_the_difference_shown(
    unchanged: Path, modules: dict[str, Path]
) -> None:
    message = refused(
        *("task", "update", "intent", modules["intent redefinition"]),
        code=5,
        says=("labels renamed: weather → snow", "centra task redefine intent FILE"),
    )
    assert "kind:" not in message
    says = ("kind: classification → regression", "labels removed: alarm, music, weather")
    refused("task", "update", "intent", modules["stars"], code=5, says=says)
    says = ("input: single → pair", "labels added: agrees, denies")
    refused("task", "update", "intent", modules["same"], code=5, says=says)


def test_a_taken_name_is_refused_with_the_two_ways_on(
    unchanged: Path, modules: dict[str, Path]
) -> None:
    says = (
        "task intent exists (team nlu, version 1.0)",
        "centra task update intent FILE",
        "centra task redefine intent FILE",
    )
    refused("task", "register", "intent", modules["intent update"], code=5, says=says)


def test_a_redefinition_that_redefines_nothing_is_refused(
    unchanged: Path, modules: dict[str, Path]
) -> None:
    says = ("nothing is redefined", "centra task update intent FILE")
    refused("task", "redefine", "intent", modules["intent update"], code=5, says=says)


def test_a_retired_task_takes_no_new_version(home: Path, modules: dict[str, Path]) -> None:
    centra("task", "retire", "intent")
    before = state(home)
    says = ("task intent is retired", "centra task restore intent")
    refused("task", "update", "intent", modules["intent update"], code=5, says=says)
    refused("task", "redefine", "intent", modules["intent redefinition"], code=5, says=says)
    assert state(home) == before


def test_nothing_is_composed_of_no_task() -> None:
    centra("init")
    refused("compose", code=2, says=("no active task", "register one first"))
    refused("predict", "hi", code=3, says="no channel production or latest")


# Data

GOOD = '{"text": "a", "label": "x"}\n{"text": "b", "label": "y"}\n'


@pytest.mark.parametrize(
    ("train", "dev", "says"),
    [
        ("", GOOD, "train.jsonl: holds no examples"),
        ("\n \n", GOOD, "train.jsonl: holds no examples"),
        (GOOD, "", "dev.jsonl: holds no examples"),
        (None, GOOD, "train.jsonl: no such file"),
        (GOOD, None, "dev.jsonl: no such file"),
        (GOOD, GOOD + '{"text": "c", "label": "z"}', "dev.jsonl:3: label 'z' does not occur"),
        (GOOD + '{"text": \n', GOOD, "train.jsonl:3: not JSON"),
        (GOOD + "\n[1]\n", GOOD, "train.jsonl:4: expected a text"),
        (GOOD + '{"text": "c"}\n', GOOD, "train.jsonl:3: expected 'label'"),
        (GOOD + '{"text": " ", "label": "x"}\n', GOOD, "train.jsonl:3: the text is empty"),
        (GOOD + '{"text": "c", "labels": ["x"]}\n', GOOD, "train.jsonl:3: a multilabel example"),
        ('{"tokens": ["a"], "labels": ["O", "O"]}', GOOD, "train.jsonl:1: 1 tokens but 2 labels"),
        (
            '{"tokens": ["a"], "labels": ["x"]}',
            '{"tokens": ["a"], "labels": ["x"]}',
            "train.jsonl:1: 'x' is not a BIO tag, and no word is tagged O",
        ),
        (GOOD, '{"text": "a", "label": 1}', "dev.jsonl:1 has a number as its label, "),
        (b"caf\xe9\n", GOOD, "train.jsonl:1: column 4 cannot be read as UTF-8"),
    ],
)
def test_training_data_that_cannot_be_used_is_named_by_file_and_line(
    unchanged: Path, tmp_path: Path, train: str | bytes | None, dev: str | None, says: str
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    for name, content in (("train.jsonl", train), ("dev.jsonl", dev)):
        if content is not None:
            data = content.encode() if isinstance(content, str) else content
            (folder / name).write_bytes(data)
    recipe = ("--backbone", "tiny", "--tap", "1", "--depth", "1")
    says = f"{folder}/{says}"
    refused("train", "--task", "new", "--data", folder, *recipe, code=1, says=says)


@pytest.mark.parametrize(
    ("content", "errors"),
    [
        (b'fine\n\n{"text": \n', {1: ":2: the text is empty", 2: ":3: not JSON"}),
        (b'fine\n{"id": 4, "text": 3}\n', {1: ":2: expected a text"}),
        (b'{"tokens": []}\n', {0: ":1: the text is empty"}),
        (b'{"tokens": ["a", 1]}\r\n', {0: ":1: 'tokens' must be"}),
        (b'{"text": "a", "text_pair": 1}\n', {0: ":1: 'text_pair' must be"}),
        (b"fine\ncaf\xe9\nfine\n", {1: ":2: cannot be read as UTF-8"}),
        (b"fine\na\0b\nfine\n", {1: ":2: holds NUL characters"}),
        (b'{"text": "a", "text": "b"}\nfine\n', {0: ":1: not JSON (the key 'text' stands twice"}),
        (b'{"tokens": ["a"], "text_pair": "b"}\n', {0: ":1: 'tokens' and 'text_pair' do not go"}),
        (b'{"text": "a", "text_pair": ""}\n', {0: ":1: the second text is empty"}),
        (b'{"text": "a", "text_pair": "b"}\nfine', {0: ":1: task intent takes a single text"}),
    ],
)
def test_an_input_that_cannot_be_answered_says_so_in_its_place(
    unchanged: Path, tmp_path: Path, content: bytes, errors: dict[int, str]
) -> None:
    file = tmp_path / "in.jsonl"
    file.write_bytes(content)
    for name, given in ((str(file), None), ("-", content)):
        options = ("--input", name, "--task", "intent")
        result = centra("predict", *options, "--json", stdin=given, code=1)
        rows = [json.loads(line) for line in result.stdout.splitlines()]
        for place, row in enumerate(rows):
            assert ("error" in row) == (place in errors)
            assert ("intent" in row) == (place not in errors)
            assert errors.get(place, "") in row.get("error", "")
            named = "<stdin>" if given else name
            assert row.get("error", named).startswith(named)
        assert f"{len(errors)} of {len(rows)} inputs could not be answered" in result.stderr
        table = centra("predict", *options, stdin=given, code=1)
        assert all(error in table.stdout for error in errors.values())


# Databases


def test_without_a_registry_here_or_above_it_says_how_to_get_one() -> None:
    says = ("no centra.toml here or above", "centra init", "CENTRA_DATABASE_URL")
    for command in ("task list", "compose", "predict hi", "audit", "db upgrade"):
        refused(*command.split(), code=3, says=says)
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"store = [", "cannot be read as TOML"),
        (b"\xff", "cannot be read as TOML"),
        (
            b"stroe = 'x'",
            "unknown setting 'stroe'; expected actor, channels, compose, database, policy, store",
        ),
        (b"store = 3", "store must be a string, found 3"),
    ],
)
def test_a_malformed_settings_file_is_refused(content: bytes, says: str) -> None:
    file = Path.cwd() / "centra.toml"
    file.write_bytes(content)
    refused("task", "list", code=2, says=(f"{file}: ", says))
    refused("init", code=2, says=(f"{file}: ", says))
    assert file.read_bytes() == content
    assert list(Path.cwd().iterdir()) == [file]


def test_init_leaves_another_registry_s_settings_alone(unchanged: Path) -> None:
    says = ("names another registry", "edit or remove it first")
    refused("--store", "elsewhere", "init", code=5, says=says)


def test_a_database_one_migration_behind_is_refused(
    unchanged: Path, modules: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("registry.database.migrations.SCHEMA", "9999")
    says = (f"is at migration {SCHEMA}, this Centra needs 9999", "centra db upgrade")
    for command in (
        ("task", "list"),
        ("task", "register", "new", str(modules["stars"])),
        ("task", "retire", "intent"),
        ("compose", "--release"),
        ("channel", "move", "production", "1"),
        ("db", "check"),
    ):
        refused(*command, code=1, says=says)


def test_a_database_from_a_newer_centra_is_refused(home: Path) -> None:
    edit(home, "UPDATE alembic_version SET version_num = '9999'")
    before = state(home)
    for command in (("task", "list"), ("db", "upgrade"), ("init",)):
        refused(*command, code=1, says=("migration 9999, newer than", "upgrade Centra"))
    assert state(home) == before


def test_a_database_without_tables_is_refused_until_it_is_upgraded(home: Path) -> None:
    (home / ".centra" / "registry.db").unlink()
    refused("task", "list", code=1, says=("there is no database", "centra db upgrade"))
    centra("db", "upgrade")
    assert read("task", "list") == []


def test_db_check_names_what_differs(home: Path) -> None:
    edit(home, "ALTER TABLE tasks ADD COLUMN colour TEXT")
    refused("db", "check", code=1, says=("the tables differ", "colour"))


def test_an_unreachable_postgresql_is_reported_without_its_password(unchanged: Path) -> None:
    url = "postgresql://centra:hunter2@127.0.0.1:1/centra"
    for command in (("task", "list"), ("compose", "--release"), ("db", "upgrade")):
        message = refused("--database", url, *command, code=1, says="127.0.0.1:1/centra")
        assert "hunter2" not in message


# Stores


@pytest.mark.usefixtures("impatient")
def test_an_unreachable_s3_is_reported(
    unchanged: Path, modules: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
        monkeypatch.setenv(name, "x")
    store = ("--store", "s3://bucket/prefix?endpoint_url=http://127.0.0.1:1")
    for command in (("task", "register", "new", modules["stars"]), ("compose",), ("predict", "hi")):
        says = ("cannot be reached", "http://127.0.0.1:1", "Check the address")
        refused(*store, *command, code=1, says=says)


def test_a_store_that_cannot_be_written_takes_no_module(
    home: Path, modules: dict[str, Path]
) -> None:
    # root ignores permissions, so a file stands where the blob's folder must be.
    blobs = home / ".centra" / "store" / "blobs" / "sha256"
    file = next(f for f in modules.values() if not (blobs / file_digest(f)[:2]).exists())
    (blobs / file_digest(file)[:2]).touch()
    before = state(home)
    says = ("cannot write to the store", "Check the folder's permissions")
    refused("task", "register", "new", file, code=4, says=says)
    assert state(home) == before


def test_a_store_below_a_file_cannot_be_read(unchanged: Path, modules: dict[str, Path]) -> None:
    store = modules["stars"] / "store"
    for command in (("task", "register", "new", modules["stars"]), ("predict", "hi")):
        says = ("cannot read", "Not a directory")
        refused("--store", store, *command, code=1, says=says)


def test_s3_credentials_that_may_only_read_change_nothing(
    home: Path,
    s3_url: str,
    become_s3_reader: Callable[[], None],
    encoder: Path,
    modules: dict[str, Path],
) -> None:
    store = ("--store", s3_url)
    centra("store", "move", s3_url)
    become_s3_reader()
    before = state(home)
    says = (f"store s3://{urlsplit(s3_url).netloc}/", "these credentials may not write")
    refused(*store, "task", "register", "new", modules["stars"], code=4, says=says)
    assert state(home) == before


# Damage


def blob(home: Path, digest: str) -> Path:
    return home / ".centra" / "store" / "blobs" / "sha256" / digest[:2] / digest


@pytest.mark.parametrize("damage", ["missing", "corrupt"])
@pytest.mark.parametrize("part", ["module", "layer", "backbone"])
def test_compose_names_the_task_whose_blob_is_damaged(home: Path, part: str, damage: str) -> None:
    shown = read("backbone", "show", "tiny")
    digest, task = {
        "module": (read("task", "show", "same")["versions"][0]["digest"], "same"),
        "layer": (shown["layers"][1], "slots"),  # The one task that reads layer 2.
        "backbone": (shown["digest"], "intent"),
    }[part]
    if damage == "missing":
        blob(home, digest).unlink()
    else:
        support.flip(blob(home, digest), bit=1000)
    before = state(home)
    says = (f"task {task}: ", digest, "is missing" if damage == "missing" else "is corrupt")
    for options in ((), ("--release",), ("--output", "out")):
        refused("compose", *options, code=6, says=says)
    assert state(home) == before


@pytest.mark.parametrize(
    "command",
    ["release verify 1", "predict hi", "predict hi --task intent", "release pull 1 --output out"],
)
def test_a_release_with_a_flipped_bit_is_not_used(home: Path, command: str) -> None:
    digest = read("task", "show", "intent")["versions"][0]["digest"]
    support.flip(blob(home, digest), bit=99_999)
    refused(*command.split(), code=6, says=(digest, "is corrupt", "put the original again"))
    assert not (home / "out" / "release.json").exists()


def test_a_pulled_release_with_a_flipped_bit_is_not_used(home: Path) -> None:
    centra("release", "pull", "1", "--output", "out")
    for file in ("tasks/intent.safetensors", "release.json", "config.json", "SHA256SUMS"):
        support.flip(home / "out" / file, bit=200)
        refused("predict", "hi", "--release", "./out", code=6, says="out/")
        support.flip(home / "out" / file, bit=200)
    centra("predict", "hi", "--release", "./out")


def test_a_module_that_does_not_reproduce_its_probe_is_not_taken_in(
    unchanged: Path, make_module: Callable[..., TaskModule], tmp_path: Path
) -> None:
    file = tmp_path / "wrong.safetensors"
    module = make_module(seed=7)
    file.write_bytes(with_tensor(module, "probe.logits", module.tensors["probe.logits"] + 1))
    for verb, name in (("register", "topic"), ("update", "intent")):
        says = (f"task {name}: parity failed", "up to 1 ", "allowed: 0.0001")
        refused("task", verb, name, file, code=6, says=says)


# Folders


@pytest.mark.parametrize("command", ["compose", "release pull 1"])
def test_a_folder_that_is_no_release_is_left_untouched(
    unchanged: Path, tmp_path: Path, command: str
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "release.json").write_text("{}")
    (folder / "thesis.txt").write_text("years of work")
    says = (f"{folder}: exists and is not a release folder", "give an empty or new one")
    refused(*command.split(), "--output", folder, code=6, says=says)
    refused(*command.split(), "--output", folder / "thesis.txt", code=6, says="thesis.txt")
    refused(
        *command.split(), "--output", folder / "thesis.txt" / "out", code=4, says="cannot write"
    )
    assert {p.name: p.read_text() for p in folder.iterdir()} == (
        {"release.json": "{}", "thesis.txt": "years of work"}
    )
