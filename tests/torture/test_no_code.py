"""No code from data: whatever a folder says of itself, nothing in it is ever executed.

A folder with a model's files, any of whose settings may say anything, also holds programs of every
likely name and pickles, each of which would write a file when it is run. Every command that takes a
folder is run on it, from within it.

``run(seconds, seed)`` goes on for as long as asked; ``CENTRA_TORTURE=10`` makes the test ten times as
long.
"""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from centra.system.files import file_digest
from registry import Registry, backbones, releases, tasks, transfer
from tests import support

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = 4

PROGRAMS = (
    *("modeling_x.py", "configuration_x.py", "tokenization_x.py", "processing_x.py", "config.py"),
    *("json.py", "torch.py", "transformers.py", "numpy.py", "tokenizers.py", "safetensors.py"),
    *(
        "__init__.py",
        "conftest.py",
        "sitecustomize.py",
        "usercustomize.py",
        "setup.py",
        "centra.py",
    ),
    *("registry.py", "cli.py", "onnxruntime.py", "custom_generate/generate.py", "re.py", "x.pth"),
)
PICKLES = (
    *("training_args.bin", "optimizer.pt", "scheduler.pt", "vocab.pkl", "tokenizer.pkl"),
    *("spiece.pkl", "rng_state.pth"),
)
WEIGHTS = "pytorch_model.bin"
FILES = (
    *("config.json", "tokenizer_config.json", "generation_config.json", "special_tokens_map.json"),
    *("adapter_config.json", "preprocessor_config.json", "processor_config.json", "modules.json"),
    *("config_sentence_transformers.json", "sentence_bert_config.json", "added_tokens.json"),
    *("tokenizer.json", "model.safetensors.index.json", "chat_template.json", "video.json"),
)
KEYS = (
    *("auto_map", "architectures", "tokenizer_class", "model_type", "_name_or_path", "use_fast"),
    *("trust_remote_code", "processor_class", "chat_template", "feature_extractor_type"),
    *("image_processor_type", "custom_pipelines", "custom_generate", "quantization_config"),
    *("_attn_implementation", "attn_implementation", "use_kernels", "base_model_name_or_path"),
    *("tokenizer_file", "vocab_file", "name_or_path", "peft_type", "adapter", "type", "backend"),
    *("torch_dtype", "dtype", "model_max_length", "extra_special_tokens", "tokenizer_type"),
    *("transformers_version", "code_revision", "is_decoder", "hidden_act", "weight_map", "model"),
    *("normalizer", "pre_tokenizer", "post_processor", "fix_mistral_regex", "idx", "path", "0"),
)
NAMES = (
    *(
        "modeling_x.Model",
        "modeling_x",
        "./modeling_x.py",
        "../modeling_x",
        "configuration_x.Config",
    ),
    *("tokenization_x.Tokenizer", "x--modeling_x.Model", "evil/evil--modeling_x.Model", "json"),
    *(
        "os.system",
        "__import__('os')",
        "json.loads",
        "torch",
        "transformers.py",
        "",
        ".",
        "..",
        "/",
    ),
    *("a.b.c.d", "modeling_x.Model\0", "ünïcode.Model", "pytorch_model.bin", "vocab.pkl", "bert"),
    *("BertTokenizer", "BertTokenizerFast", "BertForSequenceClassification", "LlamaTokenizer"),
    *("XTokenizer", "XForSequenceClassification", "kernels-community/x", "sdpa", "pickle", "gelu"),
    *("{% import 'x' %}", "{{ ''.__class__.__mro__[1].__subclasses__() }}", "file:///etc/passwd"),
    *("LORA", "custom", "Replace", "Precompiled", "ByteLevel", "1" * 5000, "BertJapaneseTokenizer"),
)
CLASSES = ("AutoConfig", "AutoModel", "AutoTokenizer", "AutoModelForSequenceClassification", "0")
COMMANDS = (
    *("backbone register", "task register", "task update", "task redefine", "distill"),
    *("predict", "release verify", "release pull", "import", "compose", "doctor"),
)

Changes = dict[str, dict[str, Any]]

values = st.recursive(
    st.one_of(
        st.sampled_from(NAMES), st.none(), st.booleans(), st.sampled_from((0, 1, -1, 10**9, 0.5))
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from((*CLASSES, *KEYS)), inner, max_size=3),
    ),
    max_leaves=5,
)
changed_files = st.dictionaries(
    st.sampled_from(FILES),
    st.dictionaries(st.sampled_from(KEYS), values, min_size=1, max_size=4),
    max_size=4,
)


class Boom:
    """Unpickled, it runs a program."""

    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (f"open({self.marker!r}, 'a').write('pickle ')",)


class Place:
    """A registry, folders to start from, and a process that runs commands and watches."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.marker = home / "executed"
        self._count = 0
        encoder = support.make_encoder("bert", home / "encoder")
        task = self._fine_tuned(encoder, home / "task")
        self.bases = {"encoder": encoder, "task": task}
        registry = Registry.create(home, actor="nlu/ada")
        backbones.register(registry, "tiny", str(encoder))
        tasks.register(registry, "intent", task)
        releases.compose(registry, publish=True, folder=home / "release")
        transfer.export_file(registry, home / "export.tar", release="1")
        registry.engine.dispose()
        self.bases["release"] = home / "release"
        support.tiny_data("single", home / "data")
        self._worker = self._start()

    @staticmethod
    def _fine_tuned(encoder: Path, folder: Path) -> Path:
        """A checkpoint that kept the encoder's own layers."""
        import torch
        import transformers

        model = transformers.AutoModelForSequenceClassification.from_pretrained(
            encoder, num_labels=3
        )
        with torch.no_grad():
            model.classifier.weight.normal_(std=0.1)
        model.save_pretrained(folder)
        support.make_tokenizer("bert").save_pretrained(folder)
        return folder

    def _start(self) -> subprocess.Popen[str]:
        variables = {
            **os.environ,
            "HF_HUB_OFFLINE": "1",
            "HF_MODULES_CACHE": str(self.home / "modules"),
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
            "CENTRA_ACTOR": "nlu/ada",
            "CENTRA_DATABASE_URL": f"sqlite:///{self.home}/.centra/registry.db",
            "CENTRA_STORE": str(self.home / ".centra" / "store"),
        }
        return subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("no_code_worker.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=variables,
            cwd=self.poisoned("task", {}),
        )

    def poisoned(self, base: str, changed: Changes, *, pickled: bool = False) -> Path:
        """A copy of a folder with other settings, and with programs and pickles in it."""
        self._count += 1
        folder = self.home / "folders" / f"{base}-{self._count}"
        shutil.copytree(self.bases[base], folder)
        for name, changes in changed.items():
            path = folder / name
            content = json.loads(path.read_text()) if path.is_file() else {}
            path.write_text(json.dumps(content | changes))
        program = (
            f"open({str(self.marker)!r}, 'a').write(__file__ if '__file__' in globals() else 'x')\n"
        )
        for name in PROGRAMS:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(f"import os; {program}" if name.endswith("pth") else program)
        pickles = [*PICKLES, WEIGHTS] if pickled else PICKLES
        for name in pickles:
            (folder / name).write_bytes(pickle.dumps(Boom(self.marker)))
        if pickled:
            (folder / "model.safetensors").unlink(missing_ok=True)
        if base == "release" and changed:
            sums = [line.split("  ") for line in (folder / "SHA256SUMS").read_text().splitlines()]
            new = [f"{file_digest(folder / path)}  {path}\n" for _, path in sums]
            (folder / "SHA256SUMS").write_text("".join(new))
        return folder

    def command(self, verb: str, folder: Path) -> list[str]:
        """The words of a command on a folder."""
        name = f"t{self._count}"
        return {
            "backbone register": [*verb.split(), name, str(folder)],
            "task register": [*verb.split(), name, str(folder)],
            "distill": ["distill", str(self.home / "data"), "--teacher", str(folder)],
            "predict": ["predict", "play some jazz", "--release", str(folder)],
            "release verify": [*verb.split(), str(folder)],
            "release pull": [*verb.split(), str(folder), "--output", str(folder / "pulled")],
            "import": ["import", str(self.home / "export.tar")],
        }.get(verb) or (
            [*verb.split(), "intent", str(folder)] if verb.startswith("task") else [verb]
        )

    def attack(self, verb: str, changed: Changes, *, pickled: bool) -> int:
        """Run a command on a folder with these settings; the exit code, when nothing was executed."""
        base = {"backbone": "encoder", "predict": "release", "release": "release"}
        folder = self.poisoned(
            base.get(verb.split(maxsplit=1)[0], "task"), changed, pickled=pickled and "task" in verb
        )
        request = {"folder": str(folder), "words": self.command(verb, folder)}
        assert self._worker.stdin is not None
        assert self._worker.stdout is not None
        self._worker.stdin.write(json.dumps(request) + "\n")
        self._worker.stdin.flush()
        answer = self._worker.stdout.readline()
        assert answer, f"the process died: {verb} {changed}"
        found = json.loads(answer)
        told = f"{verb} {json.dumps(changed)[:2000]}: {found}"
        assert not self.marker.exists(), f"executed {self.marker.read_text()}: {told}"
        assert (found["seen"], found["modules"], found["fault"]) == ([], [], None), told
        assert found["code"] in range(7), told
        assert "Traceback" not in found["says"], told
        assert not list(self.home.glob("modules/**/*x.py")), told
        shutil.rmtree(folder)
        return int(found["code"])

    def close(self) -> None:
        """End the process."""
        with self._worker as worker:
            assert worker.stdin is not None
            worker.stdin.close()


@contextmanager
def place(home: Path) -> Iterator[Place]:
    """See :class:`Place`."""
    made = Place(home)
    try:
        yield made
    finally:
        made.close()


def attacked(made: Place, count: int, number: int, until: float = float("inf")) -> Counter[str]:
    """Attack with so many made-up folders, or until a moment; how often each code came of it."""
    codes: Counter[str] = Counter()

    @seed(number)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        derandomize=False,
        suppress_health_check=[*HealthCheck],
    )
    @given(verb=st.sampled_from(COMMANDS), changed=changed_files, pickled=st.booleans())
    def each(verb: str, changed: Changes, pickled: bool) -> None:
        if time.monotonic() < until:
            codes[str(made.attack(verb, changed, pickled=pickled))] += 1

    each()
    return codes


def run(seconds: float, seed: int) -> dict[str, int]:
    """Attack for so long.

    Returns:
        How many folders there were, how many were refused, and how much was executed.
    """
    end, chance = time.monotonic() + seconds, random.Random(seed)
    codes: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder, place(Path(folder)) as made:
        while time.monotonic() < end:
            codes += attacked(made, 200, chance.randrange(2**32), end)
    total = sum(codes.values())
    return {"folders": total, "refused": total - codes["0"], "executed": 0}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place(tmp_path_factory.mktemp("no-code")) as made:
        yield made


def test_nothing_in_a_folder_is_executed_whatever_it_says(made: Place) -> None:
    longer = float(os.environ.get("CENTRA_TORTURE", "1"))
    codes = attacked(made, int(EXAMPLES * longer), 0)
    assert sum(codes.values()) >= EXAMPLES / 2


@pytest.mark.parametrize("verb", ["task register", "predict"])
def test_a_command_runs_in_a_folder_of_programs_and_runs_none(verb: str, made: Place) -> None:
    """Settings as they should be, so that all of the folder is read that ever is."""
    assert made.attack(verb, {}, pickled=False) == 0


@pytest.mark.parametrize(
    ("verb", "file"),
    [("backbone register", "config.json"), ("task update", "tokenizer_config.json")],
)
def test_a_folder_that_names_code_of_its_own_is_refused(verb: str, file: str, made: Place) -> None:
    names = {"AutoConfig": "configuration_x.Config", "AutoModel": "modeling_x.Model"}
    assert made.attack(verb, {file: {"auto_map": names}}, pickled=False) == 6
