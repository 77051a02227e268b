"""What pydantic finds wrong, in plain words: the setting, what was found, what was expected, the mend."""

from __future__ import annotations

import difflib
import json
import re
from typing import TYPE_CHECKING, Any, get_args, get_origin

from pydantic import BaseModel

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pydantic import ValidationError

__all__ = ["explain"]

_EXPECTED = {
    "bool": "true or false",
    "dict": "a table",
    "finite_number": "a finite number",
    "float": "a number",
    "int": "a whole number",
    "list": "a list",
    "missing": "a value",
    "model": "a table",
    "string": "a text in quotes",
    "tuple": "a list",
}
"""By the beginning of pydantic's name of a fault."""
_LIMITS = {
    "greater_than": ("gt", "greater than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}
_TYPE = re.compile(r"str|int|float|bool|(list|tuple|dict)\[.*\]")
"""pydantic's names of types in paths; no setting is called so."""
_WIDTH = 60
"""So many characters of a wrong value are shown."""


def explain(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """Say what is wrong with a document, a line for each fault.

    Args:
        error: of the model's validation.
        model: what the document should be.
    """
    faults = _without_types(error.errors(include_url=False))
    # A list is also called too short where an item of it is wrong.
    inner = {fault["loc"][:-1] for fault in faults}
    own = [f for f in faults if f["type"] != "too_short" or f["loc"] not in inner]
    # Of the items that a list lacks, the last says how many there must be.
    lacks = {f["loc"][:-1]: f["loc"] for f in own if f["type"] == "missing"}
    return [
        _explain(f, model)
        for f in own
        if not (f["type"] == "missing" and isinstance(f["loc"][-1], int))
        or lacks[f["loc"][:-1]] == f["loc"]
    ]


def _without_types(faults: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The faults of settings that may be of several types, by the settings' own names.

    pydantic tells what is wrong for each type, and puts the type into the path. What is of one of them
    and wrong inside is told of that one; what is of none has one fault with all types.
    """
    found: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for fault in faults:
        path = fault["loc"]
        at = next((i for i, part in enumerate(path) if _TYPE.fullmatch(str(part))), None)
        if at is None:
            found.setdefault((path, fault["type"]), []).append(fault)
        else:
            own = {**fault, "loc": (*path[:at], *path[at + 1 :])}
            found.setdefault((path[:at],), []).append(own)
    plain: list[Mapping[str, Any]] = []
    for key, group in found.items():
        inner = [f for f in group if f["loc"] != key[0] or not f["type"].endswith("_type")]
        plain += inner or [{**group[0], "types": [fault["type"] for fault in group]}]
    return plain


def _explain(fault: Mapping[str, Any], model: type[BaseModel]) -> str:
    path, found = fault["loc"], fault["input"]
    place = _place(path)
    match fault["type"]:
        case "extra_forbidden":
            return f"{place}: {_unknown([str(part) for part in path], model)}"
        case "missing" if isinstance(path[-1], int):
            return f"{_place(path[:-1])}: expected {path[-1] + 1} items, found {_shown(found)}"
        case "missing":
            return f"{place}: is missing, and has no default"
        case "value_error":
            shown = "" if isinstance(found, dict) else f", found {_shown(found)}"
            return f"{place}: {fault['ctx']['error']}{shown}"
        case kind:
            kinds = fault.get("types", [kind])
            expected = " or ".join(_expected(each, fault) for each in kinds)
            return f"{place}: expected {expected}, found {_shown(found)}"


def _place(path: Sequence[str | int]) -> str:
    """The name of a setting, items of lists counted from 0: ``search.seeds[0]``."""
    # pydantic's word for a key that is wrong itself.
    named = [part for part in path if part != "[key]"]
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in named]
    return "".join(parts).removeprefix(".") or "document"


def _expected(kind: str, fault: Mapping[str, Any]) -> str:
    context = fault.get("ctx", {})
    if kind in _LIMITS:
        name, words = _LIMITS[kind]
        return f"a number {words} {context[name]:g}"
    match kind:
        case "literal_error":
            names = re.findall("'(.*?)'", context["expected"])
            near = difflib.get_close_matches(str(fault["input"]), names, n=1)
            return f"one of {context['expected']}" + (f" (perhaps {near[0]!r})" if near else "")
        case "too_short":
            return f"at least {context['min_length']} items"
        case "too_long":
            return f"at most {context['max_length']} items"
        case "string_pattern_mismatch":
            return f"a text of the form {context['pattern']}"
    return next(
        (words for name, words in _EXPECTED.items() if kind.startswith(name)),
        str(fault["msg"]).removeprefix("Input should be "),
    )


def _unknown(path: list[str], model: type[BaseModel]) -> str:
    """That there is no such setting, and which one may have been meant."""
    settings = [*_settings(model)]
    parent, name = path[:-1], path[-1]
    beside = [s[-1] for s in settings if len(s) == len(path) and _fits(s[:-1], parent)]
    if near := difflib.get_close_matches(name, beside, n=1):
        return f"is unknown; did you mean {near[0]}?"
    for wanted in difflib.get_close_matches(name, {s[-1] for s in settings}, n=1, cutoff=0.85):
        places = [".".join(s) for s in settings if s[-1] == wanted]
        return f"is unknown here; did you mean {' or '.join(places)}?"
    return f"is unknown; expected {', '.join(beside) or 'none'}"


def _settings(model: type[BaseModel], parent: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The path of every setting of a document; ``NAME`` stands for a key that its writer chooses."""
    for name, field in model.model_fields.items():
        path = (*parent, field.alias or name)
        yield path
        named = (*path, "NAME") if get_origin(field.annotation) is dict else path
        for part in (field.annotation, *get_args(field.annotation)):
            if isinstance(part, type) and issubclass(part, BaseModel):
                yield from _settings(part, named)


def _fits(pattern: tuple[str, ...], path: list[str]) -> bool:
    return all(a in (b, "NAME") for a, b in zip(pattern, path, strict=True))


def _shown(value: object) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False)
    except TypeError:
        text = str(value)
    return text if len(text) <= _WIDTH else f"{text[:_WIDTH]} …"
