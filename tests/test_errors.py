"""Errors carry codes and data; commands and options are the command line's to name."""

from __future__ import annotations

import ast
import builtins
import re
from collections import defaultdict
from string import Formatter
from typing import TYPE_CHECKING, NamedTuple

import pytest

from cli.doctor import MENDS
from cli.errors import HINTS
from tests.support import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

COMMANDS = (
    *("init", "db", "backbone", "train", "search", "distill", "select", "fit", "task", "compose"),
    *(
        "release",
        "promote",
        "rollback",
        "channel",
        "policy",
        "predict",
        "bench",
        "export",
        "import",
    ),
    *("store", "audit", "gc", "doctor", "demo", "serve"),
)
OF_THE_COMMAND_LINE = re.compile(
    rf"\bcentra (?:{'|'.join(COMMANDS)})\b|(?<![\w-])--[a-z]|\bCENTRA_(?:ACTOR|DATABASE_URL|STORE)\b"
)


class Raised(NamedTuple):
    """A place in the sources where an error of a code is made."""

    where: str
    data: frozenset[str]
    open: bool
    """Whether it also passes on data of which the sources do not say the names."""


@pytest.fixture(scope="module")
def sources() -> dict[str, ast.Module]:
    """Every file of the library and of the registry, parsed."""
    files = [p for package in ("centra", "registry") for p in (ROOT / package).rglob("*.py")]
    return {
        str(path.relative_to(ROOT)): ast.parse(path.read_text(encoding="utf-8"))
        for path in sorted(files)
    }


@pytest.fixture(scope="module")
def raised(sources: dict[str, ast.Module]) -> dict[str, list[Raised]]:
    """By code, every place that makes an error of it."""
    found: dict[str, list[Raised]] = defaultdict(list)
    classes = {c.name: (path, c) for path, tree in sources.items() for c in error_classes(tree)}
    inits = {name: list(inits_of(path, node)) for name, (path, node) in classes.items()}
    codes = {name: code for name, (_, node) in classes.items() if (code := own_code(node))}
    for name, code in codes.items():
        found[code] += inits[name]
    for path, tree in sources.items():
        for call in calls(tree):
            name, place = called(call), made_by(call, path)
            for init in inits.get(name, []):
                place = place._replace(data=place.data | init.data)
            given = [text for k in call.keywords if k.arg == "code" for text in texts_in(k.value)]
            if not given and name in codes and not inits[name]:
                given = [codes[name]]
            for code in given:
                found[code].append(place)
    return found


def inits_of(path: str, node: ast.ClassDef) -> Iterator[Raised]:
    """What a class of errors gives itself."""
    for call in calls(node):
        if isinstance(call.func, ast.Attribute) and call.func.attr == "__init__":
            yield made_by(call, path)


def error_classes(tree: ast.Module) -> Iterator[ast.ClassDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and node.name.endswith("Error"):
            yield node


def own_code(node: ast.ClassDef) -> str | None:
    for statement in node.body:
        match statement:
            case (
                ast.Assign(targets=[ast.Name(id="code")], value=ast.Constant(value=str() as code))
                | ast.AnnAssign(target=ast.Name(id="code"), value=ast.Constant(value=str() as code))
            ):
                return code
    return None


def calls(tree: ast.AST) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def texts_in(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def called(call: ast.Call) -> str:
    match call.func:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return ""


def made_by(call: ast.Call, path: str) -> Raised:
    names = {keyword.arg for keyword in call.keywords}
    data = next((k.value for k in call.keywords if k.arg == "data"), None)
    if isinstance(data, ast.Dict):
        names |= {k.value for k in data.keys if isinstance(k, ast.Constant)}
    given = frozenset(name for name in names if name is not None)
    opened = None in names or (data is not None and not isinstance(data, ast.Dict))
    return Raised(f"{path}:{call.lineno}", given - {"code", "data"}, opened)


def needed_by(hint: str | Callable[..., str]) -> set[str]:
    """The data that a hint shows."""
    if isinstance(hint, str):
        return {field.split("[")[0] for _, field, _, _ in Formatter().parse(hint) if field}
    source = ast.parse((ROOT / "cli" / "errors.py").read_text(encoding="utf-8"))
    function = next(
        n for n in source.body if isinstance(n, ast.FunctionDef) and n.name == hint.__name__
    )
    return {
        node.slice.value
        for node in ast.walk(function)
        if isinstance(node, ast.Subscript)
        and isinstance(node.value, ast.Name)
        and node.value.id == "data"
        and isinstance(node.slice, ast.Constant)
    }


def test_every_error_has_a_code_of_its_own(sources: dict[str, ast.Module]) -> None:
    without = [
        f"{path}: {node.name}"
        for path, tree in sources.items()
        for node in error_classes(tree)
        if own_code(node) is None and not any(hasattr(builtins, base) for base in bases(node))
    ]
    assert without == []


def bases(node: ast.ClassDef) -> list[str]:
    return [base.id for base in node.bases if isinstance(base, ast.Name)]


def test_codes_are_in_kebab_case(raised: dict[str, list[Raised]]) -> None:
    assert [code for code in raised if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", code)] == []


def test_every_hint_is_of_an_error_that_there_is(raised: dict[str, list[Raised]]) -> None:
    assert sorted(HINTS.keys() - raised.keys()) == []


def test_every_error_gives_what_its_hint_shows(raised: dict[str, list[Raised]]) -> None:
    lacking = [
        f"{place.where}: {code} lacks {sorted(lacks)}"
        for code, hint in HINTS.items()
        for place in raised[code]
        if not place.open and (lacks := needed_by(hint) - place.data)
    ]
    assert lacking == []


def test_every_mend_of_the_doctor_is_of_a_finding_that_there_is(
    sources: dict[str, ast.Module],
) -> None:
    texts = {text for tree in sources.values() for text in texts_in(tree)}
    assert sorted(MENDS.keys() - texts) == []


def test_no_error_names_a_command_an_option_or_a_variable_of_the_command_line(
    sources: dict[str, ast.Module],
) -> None:
    found = {path: sorted(named_in(tree)) for path, tree in sources.items()}
    wrong = [f"{path}:{line}" for path, lines in found.items() for line in lines]
    assert wrong == []


def named_in(tree: ast.Module) -> set[str]:
    """What errors say of the command line, each with its line."""
    making: list[ast.AST] = [node for node in ast.walk(tree) if isinstance(node, ast.Raise)]
    making += [call for call in calls(tree) if called(call).endswith("Error")]
    making += [
        call for node in error_classes(tree) for call in calls(node) if called(call) == "__init__"
    ]
    return {
        f"{node.lineno}: {match[0]}"
        for part in making
        for node in ast.walk(part)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        for match in OF_THE_COMMAND_LINE.finditer(node.value)
    }
