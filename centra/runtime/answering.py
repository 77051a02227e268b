"""One batch of queries: the trunk once for all of them, each branch on those that ask for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from centra.kinds import kind_named
from centra.runtime.queries import EncodedQuery, TaskResult
from centra.runtime.schedule import Job, Outcome, Profile, compute, compute_alone
from centra.tokenization.text_encoder import Encoded

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from centra.data.inputs import Input
    from centra.runtime.engine import Inputs, LoadedTask
    from centra.runtime.parts import Parts, TrunkKey
    from centra.tokenization.text_encoder import Reading, Row

__all__ = ["Batch", "Finish", "answer_batch", "answers_of", "logits_of"]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Queries that are computed together, each once for every way in which its tasks read it."""

    queries: Sequence[EncodedQuery]
    rows: Sequence[Row]

    def only(self, inputs: Inputs) -> Batch:
        """Some of them."""
        if len(inputs) == len(self.rows):
            return self
        places = inputs.tolist()
        return Batch(queries=[self.queries[i] for i in places], rows=[self.rows[i] for i in places])

    # What follows is the same for all tasks that all queries ask for.

    @cached_property
    def inputs(self) -> list[Input]:
        """The queries' inputs."""
        return [one.input for one in self.queries]

    @cached_property
    def cut(self) -> list[int]:
        """The places of those that are longer than the backbone reads."""
        return [i for i, row in enumerate(self.rows) if row.given]

    @cached_property
    def counts(self) -> list[int]:
        """How many labels each wants besides its answer."""
        return [one.query.top_k or 0 for one in self.queries]

    @cached_property
    def wanting_logits(self) -> list[int]:
        """The places of those that want logits besides their answer."""
        return [i for i, one in enumerate(self.queries) if one.query.logits]


Finish = Callable[["LoadedTask", "np.ndarray", Batch], list[dict[str, Any]]]
"""From a task's logits for the queries of a batch to an answer for each."""


def answer_batch(
    parts: Parts,
    batch: Sequence[EncodedQuery],
    finish: Finish,
    profile: Profile | None = None,
) -> Iterator[TaskResult]:
    """Answer queries together; see :meth:`centra.runtime.release.Release.answer`.

    Args:
        parts: of the release.
        batch: of any number of queries.
        finish: makes the answers.
        profile: run part by part, and add here what each takes.
    """
    start = time.perf_counter()
    for key, asked in _asked(parts, batch).items():
        for outcome in _run(parts, key, batch, asked, finish=finish, profile=profile):
            name = outcome.job.name
            yield TaskResult(
                task=name,
                places=tuple(asked[name]),
                answers=outcome.value or [],
                error=outcome.error,
                trunk_seconds=outcome.reached - start,
                branch_seconds=outcome.done - outcome.reached,
            )


def _asked(parts: Parts, batch: Sequence[EncodedQuery]) -> dict[TrunkKey, dict[str, list[int]]]:
    """By trunk and task, the places of the queries that ask for the task, ascending."""
    alike: dict[tuple[str, ...], list[int]] = {}
    for place, one in enumerate(batch):
        alike.setdefault(one.tasks, []).append(place)
    asked: dict[TrunkKey, dict[str, list[int]]] = {}
    for tasks, places in alike.items():
        for name in tasks:
            asked.setdefault(parts.trunk_of[name], {}).setdefault(name, []).extend(places)
    if len(alike) > 1:
        for by_task in asked.values():
            for places in by_task.values():
                places.sort()
    return asked


def _run(
    parts: Parts,
    key: TrunkKey,
    batch: Sequence[EncodedQuery],
    asked: Mapping[str, Sequence[int]],
    *,
    finish: Finish,
    profile: Profile | None,
) -> Iterator[Outcome[list[dict[str, Any]]]]:
    """Run the tasks that stand on one trunk.

    Args:
        parts, batch, finish, profile: see :func:`answer_batch`.
        key: of the trunk.
        asked: by task, the places of the queries that ask for it, ascending.
    """
    read: dict[Reading, set[int]] = {}
    for name, places in asked.items():
        read.setdefault(parts.reading_of[name], set()).update(places)
    present = [(reading, place) for reading in sorted(read) for place in sorted(read[reading])]
    own = Batch(
        queries=[batch[place] for _, place in present],
        rows=[batch[place].rows[reading] for reading, place in present],
    )
    every, numbers = np.arange(len(present)), {one: i for i, one in enumerate(present)}
    readers: dict[int, list[Inputs]] = {}
    jobs: list[Job[list[dict[str, Any]]]] = []
    for name, places in asked.items():
        inputs = every
        # Most often a task is asked by all or none, and all read alike.
        if len(places) < len(present):
            reading = parts.reading_of[name]
            inputs = np.array([numbers[reading, place] for place in places])
        readers.setdefault(parts.tasks[name].spec.tap_layer, []).append(inputs)
        jobs.append(_job(name, parts.tasks[name], own, inputs, finish))
    digest, _ = key
    encoded = Encoded.pad(own.rows, parts.encoders[digest].pad_token_id)
    steps = parts.trunks[key].engine.run(encoded, readers)
    if profile is None:
        return compute(parts.pool, steps, jobs)
    return compute_alone(parts.pool, steps, jobs, profile)


def _job(
    name: str, task: LoadedTask, batch: Batch, inputs: Inputs, finish: Finish
) -> Job[list[dict[str, Any]]]:
    """A task's branch on those of a batch that ask for it."""

    def run(hidden_states: Any) -> list[dict[str, Any]]:
        return finish(task, task.branch.run(hidden_states, inputs), batch.only(inputs))

    # A layer on the first token alone is much shorter than one on all, and still no trifle.
    length = task.spec.depth if task.spec.reads_every_token else task.spec.depth - 0.5
    return Job(name=name, tap=task.spec.tap_layer, length=length, run=run)


def answers_of(task: LoadedTask, logits: np.ndarray, batch: Batch) -> list[dict[str, Any]]:
    """A task's answers; see :class:`centra.runtime.queries.TaskResult`."""
    kind, spec = kind_named(task.spec.kind), task.spec
    answers = kind.decode(spec, logits, batch.inputs, batch.rows, task.chain)
    for i in batch.cut:
        row = batch.rows[i]
        answers[i]["truncated"] = {"tokens": row.given, "kept": len(row.input_ids)}
    if kind.ranks_labels and any(batch.counts):
        best = kind.best_labels(spec, logits, batch.counts)
        for answer, labels in zip(answers, best, strict=True):
            if labels:
                answer["top"] = labels
    if batch.wanting_logits:
        raw = logits_of(task, logits, batch)
        for i in batch.wanting_logits:
            answers[i]["logits"] = raw[i]["logits"].tolist()
    return answers


def logits_of(task: LoadedTask, logits: np.ndarray, batch: Batch) -> list[dict[str, Any]]:
    """``{"logits"}`` for each query: an array ``(outputs,)``, or ``(tokens, outputs)``."""
    if not task.spec.reads_every_token:
        return [{"logits": array} for array in logits]
    return [
        {"logits": array[: len(row.input_ids)]}
        for array, row in zip(logits, batch.rows, strict=True)
    ]
