"""What a server is asked, and whether what it says is a whole answer."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any

from centra.data.inputs import Input

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Call", "Outcome", "predict_calls"]

_WORDS = (
    "the",
    "of",
    "and",
    "to",
    "in",
    "is",
    "was",
    "for",
    "on",
    "that",
    "by",
    "this",
    "with",
    "from",
)
"""Most vocabularies hold each of them whole."""
_SPECIAL = 2
"""Tokens that a tokenizer adds to a text, as most do."""
_FIELDS = ("text", "text_pair", "tokens", "tasks")
_DIFFERENT = 64
"""Requests of one size that are made up: so many that no two neighbours are alike."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a whole answer holds."""

    inputs: int
    answers: int
    """Of all tasks together."""
    release: str | None = None
    """The digest of the release that it names."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """A request."""

    path: str
    body: bytes
    """JSON."""
    check: Callable[[bytes], Outcome]
    """Given the body of the answer; raises ValueError where it is not whole."""


def predict_calls(
    *,
    inputs: Sequence[object] | None = None,
    lengths: Sequence[int] = (16,),
    batches: Sequence[int] = (1,),
    tasks: Sequence[str] = (),
    seed: int = 0,
) -> list[Call]:
    """Requests to ``POST /v1/predict``, each of which is as likely as the next.

    Args:
        inputs: what is sent; see :meth:`centra.data.inputs.Input.parse`. An object may name ``tasks``
            of its own; other fields of it are left out. Default texts that are made up.
        lengths: about how many tokens a made-up text has, special ones included; one that stands
            there twice is sent twice as often.
        batches: how many inputs a request has, likewise.
        tasks: which are asked for; default all that suit an input.
        seed: of what is left to chance.

    Raises:
        DataError: an input is malformed.
    """
    chance = random.Random(seed)  # noqa: S311 - texts, no secrets
    calls = []
    if inputs is not None:
        items = [_item(item, f"input {number}") for number, item in enumerate(inputs, 1)]
        for batch in batches:
            for start in range(0, len(items), batch):
                several = [items[(start + place) % len(items)] for place in range(batch)]
                calls.append(_call(several, tasks))
        return calls
    for length, batch in product(lengths, batches):
        for _ in range(_DIFFERENT):
            words = max(1, length - _SPECIAL)
            texts = [" ".join(chance.choices(_WORDS, k=words)) for _ in range(batch)]
            calls.append(_call(texts, tasks))
    return calls


def _item(value: object, where: str) -> object:
    """An input as the server takes it: of an example without its label."""
    parsed = Input.parse(value, where)
    if isinstance(value, dict):
        return {name: value[name] for name in _FIELDS if value.get(name) is not None}
    if parsed.text_pair is None:
        return parsed.text
    return {"text": parsed.text, "text_pair": parsed.text_pair}


def _call(items: Sequence[object], tasks: Sequence[str]) -> Call:
    body: dict[str, Any] = {"inputs": items}
    if tasks:
        body["tasks"] = list(tasks)
    expected = [
        frozenset(item.get("tasks", tasks) if isinstance(item, dict) else tasks) for item in items
    ]
    return Call(
        path="/v1/predict",
        body=json.dumps(body).encode(),
        check=partial(_check, expected),
    )


def _check(expected: Sequence[frozenset[str]], body: bytes) -> Outcome:
    """See :attr:`Call.check`.

    Args:
        expected: of each input the tasks that were asked for, none for all that suit it.
        body: the answer.
    """
    found = json.loads(body)
    try:
        answers = found["answers"]
        if len(answers) != len(expected):
            raise ValueError(f"{len(answers)} answers to {len(expected)} inputs")
        count = 0
        for answer, tasks in zip(answers, expected, strict=True):
            if error := answer.get("error") or next(iter(answer["errors"].values()), None):
                raise ValueError(f"an answer is an error: {error}")
            given = answer["tasks"]
            if not given or (tasks and given.keys() != tasks):
                raise ValueError(f"answered are the tasks {', '.join(sorted(given)) or 'none'}")
            count += len(given)
        return Outcome(inputs=len(answers), answers=count, release=found["release"]["digest"])
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"no answer of /v1/predict: {type(error).__name__} {error}") from error
