"""A request on its way: parsed, cut into batches, tokenised once, computed, and finished per task."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from centra.data.inputs import Input
from centra.errors import DataError, UsageError
from centra.formats.names import distinct_names
from centra.kinds import kind_named
from centra.runtime.parts import no_such_task
from centra.runtime.schedule import Job, Profile, compute, compute_alone
from centra.system.forks import computing

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    import numpy as np

    from centra.runtime.engine import LoadedTask
    from centra.runtime.parts import Parts, TrunkKey
    from centra.tokenization.text_encoder import Row

__all__ = [
    "Batch",
    "answers_of",
    "is_one_input",
    "parse_inputs",
    "run_request",
    "unpadded_logits_of",
]

T = TypeVar("T")

_BATCH_SIZE = 32


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Inputs of a request that are computed together, as a backbone reads them."""

    inputs: list[Input]
    rows: list[Row]


Finish = Callable[["LoadedTask", "np.ndarray", Batch], list[T]]
"""From a task's logits on a batch to one value per input."""


def is_one_input(inputs: object) -> bool:
    """Whether this is an input itself, and not several."""
    return isinstance(inputs, str | bytes | Mapping | Input)


def parse_inputs(inputs: object) -> list[Input]:
    """The inputs of a request: one, or an iterable of them.

    Raises:
        UsageError: it is neither.
        DataError: an input is malformed; it is named by its place, from 1.
    """
    if is_one_input(inputs):
        inputs = [inputs]
    if not isinstance(inputs, Iterable):
        raise UsageError(
            f"expected a text, an object with 'text' or 'tokens', or a list of them; "
            f"found {inputs!r}",
            code="no-inputs",
        )
    return [Input.parse(item, f"input {number}") for number, item in enumerate(inputs, 1)]


def run_request(
    parts: Parts,
    inputs: Sequence[Input],
    tasks: Collection[str] | str | None,
    finish: Finish[T],
    profile: Profile | None = None,
) -> Iterator[tuple[str, list[int], list[T]]]:
    """Run a request in batches.

    Args:
        parts: of the release.
        inputs: of the request.
        tasks: see :meth:`centra.runtime.release.Release.predict`.
        finish: makes the values.
        profile: run part by part, and add here what each takes.

    Yields:
        A task, the places of some inputs, and its values for them.
    """
    names = _chosen_tasks(parts, inputs, tasks)
    parts.check_process()
    for form in ("single", "pair"):
        positions = [i for i, item in enumerate(inputs) if item.form == form]
        by_trunk: dict[TrunkKey, list[str]] = {}
        for name in names:
            if parts.tasks[name].spec.input == form:
                by_trunk.setdefault(parts.trunk_of[name], []).append(name)
        for start in range(0, len(positions), _BATCH_SIZE):
            places = positions[start : start + _BATCH_SIZE]
            items = [inputs[i] for i in places]
            for name, values in _run_batch(parts, items, by_trunk, finish, profile):
                yield name, places, values


def answers_of(task: LoadedTask, logits: np.ndarray, batch: Batch) -> list[dict[str, Any]]:
    """A task's answers, each of which says where its input was cut."""
    kind = kind_named(task.spec.kind)
    answers = kind.decode(task.spec, logits, batch.inputs, batch.rows, task.chain)
    for answer, row in zip(answers, batch.rows, strict=True):
        if row.given:
            answer["truncated"] = {"tokens": row.given, "kept": len(row.input_ids)}
    return answers


def unpadded_logits_of(task: LoadedTask, logits: np.ndarray, batch: Batch) -> list[np.ndarray]:
    """Logits per input, without padding."""
    if not task.spec.reads_every_token:
        return list(logits)
    return [array[: len(row.input_ids)] for array, row in zip(logits, batch.rows, strict=True)]


def _run_batch(
    parts: Parts,
    inputs: list[Input],
    by_trunk: Mapping[TrunkKey, Sequence[str]],
    finish: Finish[T],
    profile: Profile | None,
) -> Iterator[tuple[str, list[T]]]:
    """Run inputs of one form together, for the tasks of each backbone and precision."""
    # A backbone in two precisions reads the same tokens.
    with computing:
        tokens = {digest: parts.encoders[digest].batch(inputs) for digest, _ in by_trunk}
    failure: Exception | None = None
    for key, names in by_trunk.items():
        rows, encoded = tokens[key[0]]
        batch = Batch(inputs=inputs, rows=rows)
        taps = {parts.tasks[name].spec.tap_layer for name in names}
        steps = parts.trunks[key].engine.run(encoded, taps)
        jobs = [_job(name, parts.tasks[name], batch, finish) for name in names]
        try:
            if profile is None:
                yield from compute(parts.pool, steps, jobs)
            else:
                yield from compute_alone(parts.pool, steps, jobs, profile)
        except Exception as error:  # noqa: BLE001 - raised when all others are done
            failure = failure or error
    if failure:
        raise failure


def _job(name: str, task: LoadedTask, batch: Batch, finish: Finish[T]) -> Job[list[T]]:
    spec = task.spec

    def run(hidden_states: Any) -> list[T]:
        return finish(task, task.branch.run(hidden_states), batch)

    # A layer on the first token alone is much shorter than one on all, and still no trifle.
    length = spec.depth if spec.reads_every_token else spec.depth - 0.5
    return Job(name=name, tap=spec.tap_layer, length=length, run=run)


def _chosen_tasks(
    parts: Parts, inputs: Sequence[Input], tasks: Collection[str] | str | None
) -> list[str]:
    if tasks is None:
        return sorted(parts.tasks)
    names = distinct_names(tasks)
    for name in names:
        if name not in parts.tasks:
            raise no_such_task(name, sorted(parts.tasks))
        expected = parts.tasks[name].spec.input
        for number, item in enumerate(inputs, 1):
            if item.form != expected:
                raise DataError(
                    f"input {number}: task {name} takes "
                    + ("a pair of texts" if expected == "pair" else "a single text"),
                    code="wrong-input-form",
                    task=name,
                    input=number,
                    expected=expected,
                )
    return names
