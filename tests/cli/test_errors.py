"""What the command line makes of errors: each code that has a hint is raised, with what the hint tells."""

from __future__ import annotations

import ast
import string
from collections import defaultdict
from typing import TYPE_CHECKING

import pytest

from centra.errors import ConflictError, NotFoundError, VerificationError
from cli.errors import EXIT_CODES, HINTS, exit_code, message
from tests.support import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator


def raised() -> dict[str, list[set[str]]]:
    """By code, the names of the data of each place that gives it; ``**`` for what is not said there."""
    found: dict[str, list[set[str]]] = defaultdict(list)
    for package in ("centra", "registry", "cli"):
        for path in sorted((ROOT / package).rglob("*.py")):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            for code, names in _codes(tree):
                found[code].append(names)
    return found


def _codes(tree: ast.Module) -> Iterator[tuple[str, set[str]]]:
    for node in ast.walk(tree):
        match node:
            case ast.Call(args=args, keywords=keywords):
                # A class of its own makes data of more than its text.
                more = {"**"} if len(args) > 1 else set()
                for keyword in keywords:
                    if keyword.arg == "code":
                        for constant in _constants(keyword.value):
                            yield constant, {k.arg or "**" for k in keywords} | more
            case ast.ClassDef(body=body):
                for statement in body:
                    match statement:
                        case (
                            ast.Assign(targets=[ast.Name(id="code")], value=value)
                            | ast.AnnAssign(target=ast.Name(id="code"), value=value)
                        ) if value is not None:
                            for constant in _constants(value):
                                yield constant, _given_to_super(node)
            case _:
                pass


def _constants(node: ast.expr) -> list[str]:
    return [
        part.value
        for part in ast.walk(node)
        if isinstance(part, ast.Constant) and isinstance(part.value, str)
    ]


def _given_to_super(node: ast.ClassDef) -> set[str]:
    return {
        keyword.arg or "**"
        for call in ast.walk(node)
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and call.func.attr == "__init__"
        for keyword in call.keywords
    } or {"**"}


RAISED = raised()
SOURCE = "".join(
    path.read_text(encoding="utf-8")
    for package in ("centra", "registry")
    for path in (ROOT / package).rglob("*.py")
)


@pytest.mark.parametrize("code", sorted(HINTS))
def test_a_hint_is_of_a_code_that_is_raised_with_what_it_tells(code: str) -> None:
    assert f'"{code}"' in SOURCE
    hint = HINTS[code]
    if isinstance(hint, str):
        needed = {name for _, name, _, _ in string.Formatter().parse(hint) if name}
        for given in RAISED[code]:
            assert "**" in given or needed <= given


def test_an_error_ends_with_the_code_of_its_branch() -> None:
    assert sorted(EXIT_CODES.values()) == [1, 2, 3, 4, 5, 6]
    assert exit_code(NotFoundError("x")) == 3
    assert exit_code(VerificationError("x")) == 6


def test_a_hint_stands_on_a_line_of_its_own_and_a_cause_gives_its() -> None:
    error = ConflictError("task intent is retired", code="task-retired", task="intent")
    assert message(error) == "task intent is retired\nFirst: centra task restore intent"
    other = VerificationError("file.tar: cannot be imported")
    assert message(other) == "file.tar: cannot be imported"
    other.__cause__ = error
    assert message(other) == "file.tar: cannot be imported\nFirst: centra task restore intent"
