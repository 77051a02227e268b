"""What a transformers folder or hub repository says in its JSON files, and that its code never runs.

transformers asks on the terminal whether to run a repository's own code, and runs it on "y". Centra
passes ``trust_remote_code=False`` wherever it loads, and refuses what names such code: without it
the weights may mean something else.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from centra.errors import FormatError, IncompatibleError, NotFoundError, first_line
from centra.families import FAMILIES
from centra.formats.strict_json import parse_foreign
from centra.system.files import decode_text
from centra.system.reading import read_regular

if TYPE_CHECKING:
    from collections.abc import Mapping

_LARGEST = 1 << 27
"""Bytes of a file beside the weights; tokenizers of a million tokens have a third of it."""

__all__ = ["find_file", "read_file", "read_json", "refuse_code"]


def find_file(
    source: str, name: str, revision: str | None = None, *, required: bool = False
) -> Path | None:
    """The path of a file of a folder or hub repository, fetched from the hub where need be.

    Args:
        source: a folder or a hub name.
        name: the file's name, e.g. ``"tokenizer.json"``.
        revision: the hub's branch, tag or commit.
        required: what the hub does not give is an error. Otherwise, and in a folder, it is None.

    Raises:
        NotFoundError: there is no such folder or hub repository.
        FormatError: the hub cannot give the file.
    """
    if Path(source).is_dir():
        path = Path(source) / name
        return path if path.is_file() else None
    from huggingface_hub import errors, hf_hub_download

    unreachable = (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled)
    nowhere = (errors.RepositoryNotFoundError, errors.HFValidationError, *unreachable)
    denied = (errors.GatedRepoError, errors.RevisionNotFoundError)
    try:
        return Path(hf_hub_download(source, name, revision=revision))
    except Exception as error:
        if not required and isinstance(error, (errors.EntryNotFoundError, *unreachable)):
            return None
        # A gated repository is there; the hub calls it not found all the same.
        if isinstance(error, nowhere) and not isinstance(error, denied):
            raise NotFoundError(
                f"{source}: no such folder here, and the hub could not give it "
                f"({first_line(error)})",
                code="model-not-found",
                source=source,
            ) from error
        raise FormatError(f"{source}: cannot read its {name} ({first_line(error)})") from error


def read_file(source: str, name: str, revision: str | None = None) -> bytes | None:
    """A file of a folder or hub repository; None where it has none of that name.

    Args:
        source, name, revision: see :func:`find_file`.

    Raises:
        NotFoundError: there is no such folder or hub repository.
        FormatError: the file cannot be had.
    """
    path = find_file(source, name, revision)
    try:
        return read_regular(path, _LARGEST) if path else None
    except OSError as error:
        raise FormatError(f"{source}: cannot read its {name} ({first_line(error)})") from error


def read_json(source: str, name: str, revision: str | None = None) -> dict[str, Any]:
    """A JSON object of a folder or hub repository; an empty one where there is no such file.

    Args:
        source, name, revision: see :func:`find_file`.

    Raises:
        NotFoundError: there is no such folder or hub repository.
        FormatError: the file cannot be had, or is no JSON object.
    """
    data = read_file(source, name, revision)
    if data is None:
        return {}
    try:
        content = parse_foreign(decode_text(data))
    except ValueError as error:
        raise FormatError(f"{source}: its {name} is no JSON in UTF-8 ({error})") from error
    if not isinstance(content, dict):
        raise FormatError(
            f"{source}: its {name} holds a JSON {_json_type(content)}; expected the object that "
            "save_pretrained writes"
        )
    return content


def refuse_code(source: str, revision: str | None = None) -> None:
    """Refuse a folder or hub repository that wants Python code of its own to run.

    Args:
        source: a folder or a hub name.
        revision: the hub's branch, tag or commit.

    Raises:
        NotFoundError: there is no such folder or hub repository.
        FormatError: ``config.json`` or ``tokenizer_config.json`` is no JSON object.
        IncompatibleError: one of them has an ``auto_map``.
    """
    for name, mend in (("config.json", _plain_model), ("tokenizer_config.json", _plain_tokenizer)):
        content = read_json(source, name, revision)
        auto_map = _auto_map(content)
        if auto_map:
            raise IncompatibleError(
                f"{source}: the auto_map in its {name} names Python code of its own "
                f"({json.dumps(auto_map)[:200]}). Centra runs no code from a folder or the hub, and "
                f"without it the weights may mean something else. {mend(content)}"
            )


def _plain_model(content: Mapping[str, Any]) -> str:
    """How to get a folder without code from one whose ``config.json`` this is."""
    model_type = content.get("model_type")
    family = FAMILIES.get(model_type) if isinstance(model_type, str) else None
    if family is None or family.transformers is None or not content.get("auto_map"):
        return (
            "Where a plain transformers class gives the same answers, load it with that class and "
            "save it again."
        )
    saved_by = content.get("architectures")
    stem = family.transformers.model.removesuffix("Model")
    heads = [f"{stem}ForSequenceClassification", f"{stem}ForTokenClassification"]
    kind = next((head for head in heads if saved_by == [head]), family.transformers.model)
    return (
        f"transformers has {model_type} itself; Centra takes what its class makes of the weights: model "
        f"= transformers.{kind}.from_pretrained(SOURCE); del model.config.auto_map; "
        "model.save_pretrained(NEW_FOLDER). Save the tokenizer there, too."
    )


def _plain_tokenizer(content: Mapping[str, Any]) -> str:  # noqa: ARG001 - is the same for all
    return (
        "Where transformers' own class gives the same ids: tokenizer = transformers.AutoTokenizer"
        ".from_pretrained(SOURCE, trust_remote_code=False); tokenizer.init_kwargs.pop('auto_map'); "
        "tokenizer.save_pretrained(NEW_FOLDER)."
    )


def _auto_map(content: object) -> object:
    """What stands under ``auto_map``, at any depth; None where it is nowhere or empty."""
    if isinstance(content, dict):
        return content.get("auto_map") or _first(content.values())
    return _first(content) if isinstance(content, list) else None


def _first(parts: Any) -> object:
    return next((found for part in parts if (found := _auto_map(part))), None)


def _json_type(value: object) -> str:
    types = {list: "array", str: "string", bool: "boolean", type(None): "null"}
    return types.get(type(value), "number")
