"""What the command line makes of errors: an exit code, and what to do on a line of its own."""

from __future__ import annotations

from centra.errors import ConflictError, NotFoundError, VerificationError
from cli.errors import EXIT_CODES, exit_code, message


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
