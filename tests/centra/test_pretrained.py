"""Files of a folder or hub repository, and that no code of its own ever runs."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import TYPE_CHECKING, Any, ClassVar

import huggingface_hub
import huggingface_hub.errors
import pytest

from centra.checkpoints.backbone import import_backbone
from centra.checkpoints.conversion import convert
from centra.checkpoints.pretrained import find_file, read_file, read_json, refuse_code
from centra.errors import FormatError, IncompatibleError, NotFoundError
from tests import support

if TYPE_CHECKING:
    from pathlib import Path

    from centra.errors import CentraError
    from centra.store import LocalStore

OWN = "from pathlib import Path\nPath('RAN').touch()\nclass Own: pass\n"


@pytest.fixture(autouse=True)
def nothing_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A question is a failure, and so is a file that own code would leave here."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("builtins.input", lambda *text: pytest.fail(f"it asks: {text}"))


@pytest.fixture
def folder(tmp_path: Path, tiny_backbone: support.Backbone) -> Path:
    """A BERT with code of its own beside it, which nothing names yet."""
    folder = shutil.copytree(tiny_backbone.folder, tmp_path / "bert")
    for name in ("own.py", "modeling_bert.py", "setup.py", "__init__.py"):
        (folder / name).write_text(OWN)
    (folder / "custom_generate").mkdir()
    (folder / "custom_generate" / "generate.py").write_text(OWN)
    return folder


def change(path: Path, **fields: Any) -> None:
    content = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(content | fields))


# Files


def test_files_are_read_and_missing_ones_are_none(folder: Path) -> None:
    assert read_file(str(folder), "own.py") == OWN.encode()
    assert read_file(str(folder), "none.json") is None
    assert read_json(str(folder), "config.json")["model_type"] == "bert"
    assert read_json(str(folder), "none.json") == {}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"[]", "holds a JSON array; expected the object"),
        (b"{", "is no JSON"),
        (b"\xff{}", "is no JSON in UTF-8"),
        (b"[" * 100_000, "is no JSON"),
    ],
)
def test_what_is_no_json_object_is_named(content: bytes, says: str, folder: Path) -> None:
    (folder / "tokenizer_config.json").write_bytes(content)

    with pytest.raises(FormatError, match=f"tokenizer_config.json {says}"):
        refuse_code(str(folder))


def test_a_source_that_is_nowhere_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no such folder"):
        read_file(str(tmp_path / "none"), "config.json")


class Response:
    """Of the hub, as its errors hold it."""

    status_code = 404
    headers: ClassVar[dict[str, str]] = {}
    request = None


@pytest.mark.parametrize(
    ("error", "optional", "required"),
    [
        ("EntryNotFoundError", None, FormatError),
        ("LocalEntryNotFoundError", None, NotFoundError),
        ("OfflineModeIsEnabled", None, NotFoundError),
        ("RepositoryNotFoundError", NotFoundError, NotFoundError),
        ("HFValidationError", NotFoundError, NotFoundError),
        ("GatedRepoError", FormatError, FormatError),
        ("RevisionNotFoundError", FormatError, FormatError),
    ],
)
def test_what_the_hub_says_is_told_by_the_type_of_its_error(
    error: str,
    optional: type[CentraError] | None,
    required: type[CentraError],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kind = getattr(huggingface_hub.errors, error)

    def fail(*_: object, **__: object) -> None:
        http = issubclass(kind, huggingface_hub.errors.HfHubHTTPError)
        raise kind("offline 404", response=Response()) if http else kind("offline 404")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)

    if optional is None:
        assert find_file("someone/bert", "vocab.txt") is None
    else:
        with pytest.raises(optional):
            find_file("someone/bert", "vocab.txt")
    with pytest.raises(required, match="someone/bert"):
        find_file("someone/bert", "vocab.txt", required=True)


# Code


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
@pytest.mark.parametrize(
    "fields",
    [
        {"auto_map": {"AutoConfig": "own.Own", "AutoModel": "own.Own"}},
        {"auto_map": {"AutoTokenizer": ["own.Own", None]}},
        {"auto_map": ["own.Own", "own.Own"]},
        {"auto_map": "own.Own"},
        {"auto_map": {"AutoModel": "somebody/else--own.Own"}},
        {"encoder": {"auto_map": {"AutoModel": "own.Own"}}},
        {"parts": [{"x": 1}, {"auto_map": {"AutoModel": "own.Own"}}]},
    ],
    ids=str,
)
def test_an_auto_map_is_refused_with_the_reason(
    file: str, fields: dict[str, Any], folder: Path, store: LocalStore, tmp_path: Path
) -> None:
    change(folder / file, **fields)

    with pytest.raises(
        IncompatibleError, match=rf"auto_map in its {file} names .*Own.*runs no code"
    ):
        import_backbone(str(folder), store)
    assert not store.root.exists()
    assert not (tmp_path / "RAN").exists()


def test_own_code_without_a_known_model_type_is_refused_for_its_code(
    folder: Path, store: LocalStore
) -> None:
    change(folder / "config.json", model_type="own", auto_map={"AutoConfig": "own.Own"})

    with pytest.raises(IncompatibleError, match="names Python code"):
        import_backbone(str(folder), store)


@pytest.mark.parametrize(
    "fields",
    [
        {"tokenizer_class": "Own"},
        {"tokenizer_class": "own.Own"},
        {"tokenizer_class": "BertModel"},
        {"tokenizer_class": 5},
    ],
    ids=str,
)
def test_a_class_that_is_not_transformers_is_refused(
    fields: dict[str, Any], folder: Path, store: LocalStore, tmp_path: Path
) -> None:
    change(folder / "tokenizer_config.json", **fields)

    with pytest.raises(FormatError, match=r"transformers does not have|no fast form"):
        import_backbone(str(folder), store)
    assert not (tmp_path / "RAN").exists()


def test_python_files_and_templates_beside_a_backbone_are_harmless(
    folder: Path, store: LocalStore, tiny_backbone: support.Backbone, tmp_path: Path
) -> None:
    (folder / "chat_template.jinja").write_text("{{ ''.__class__.__mro__[1].__subclasses__() }}")
    change(
        folder / "config.json",
        auto_map={},
        custom_pipelines={"x": {"impl": "own.Own"}},
        attn_implementation="somebody/kernel",  # transformers would fetch and run it
    )
    change(folder / "tokenizer_config.json", chat_template="{% broken", trust_remote_code=True)

    assert import_backbone(str(folder), store).digest == tiny_backbone.spec.digest
    assert not (tmp_path / "RAN").exists()


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_a_checkpoint_with_code_of_its_own_is_refused(
    file: str, tiny_backbone: support.Backbone, tmp_path: Path
) -> None:
    folder = support.make_checkpoint(
        "bert", "AutoModelForSequenceClassification", tmp_path / "mine"
    )
    (folder / "own.py").write_text(OWN)
    change(folder / file, auto_map={"AutoModelForSequenceClassification": "own.Own"})

    with pytest.raises(IncompatibleError, match=f"auto_map in its {file}"):
        convert(folder, {"tiny@1": tiny_backbone.spec}, tiny_backbone.store)
    assert not (tmp_path / "RAN").exists()


@pytest.mark.parametrize("answers", [None, b"y\n" * 10_000], ids=["silent", "yes"])
def test_nothing_is_read_from_standard_input(
    answers: bytes | None, folder: Path, warm_python: Path, tmp_path: Path
) -> None:
    """With an open, silent one it must give up at once; with ``yes |`` it must run nothing."""
    change(folder / "config.json", model_type="own", auto_map={"AutoConfig": "own.Own"})
    run = f"from centra.checkpoints.backbone import import_backbone; import_backbone({str(folder)!r}, None)"
    with subprocess.Popen(
        [warm_python, "-c", run], stdin=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        if answers:
            process.stdin.write(answers)
            process.stdin.flush()
        try:
            assert process.wait(timeout=12) != 0  # transformers waits for an answer for 15 seconds
        finally:
            process.kill()
        assert b"names Python code of its own" in process.stderr.read()
    assert not (tmp_path / "RAN").exists()
