"""One batch of queries: the trunk once for all of them, each branch on those that ask for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from centra.kinds import kind_named
from centra.runtime.queries import EncodedQuery, TaskResult
from centra.runtime.schedule import Job, Outcome, Profile, compute, compute_alone
from centra.tokenization.text_encoder import Encoded

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from centra.runtime.engine import Inputs, LoadedTask
    from centra.runtime.parts import Parts, TrunkKey
    from centra.tokenization.text_encoder import Row

__all__ = ["Batch", "Finish", "answer_batch", "answers_of", "logits_of"]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Queries that are computed together, and how a backbone reads each."""

    queries: Sequence[EncodedQuery]
    rows: Sequence[Row]

    def only(self, inputs: Inputs) -> Batch:
        """Some of them."""
        if len(inputs) == len(self.rows):
            return self
        places = inputs.tolist()
        return Batch(queries=[self.queries[i] for i in places], rows=[self.rows[i] for i in places])


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
    digest, _ = key
    present = sorted({place for places in asked.values() for place in places})
    own = Batch(
        queries=[batch[place] for place in present],
        rows=[batch[place].rows[digest] for place in present],
    )
    readers: dict[int, list[Inputs]] = {}
    jobs: list[Job[list[dict[str, Any]]]] = []
    for name, places in asked.items():
        inputs = np.searchsorted(present, places)
        readers.setdefault(parts.tasks[name].spec.tap_layer, []).append(inputs)
        jobs.append(_job(name, parts.tasks[name], own, inputs, finish))
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
    kind, spec, queries = kind_named(task.spec.kind), task.spec, batch.queries
    inputs = [one.input for one in queries]
    answers = kind.decode(spec, logits, inputs, batch.rows, task.chain)
    for answer, row in zip(answers, batch.rows, strict=True):
        if row.given:
            answer["truncated"] = {"tokens": row.given, "kept": len(row.input_ids)}
    counts = [one.query.top_k or 0 for one in queries]
    if kind.ranks_labels and any(counts):
        ranked = kind.best_labels(spec, logits, counts)
        for answer, count, labels in zip(answers, counts, ranked, strict=True):
            if count:
                answer["top"] = labels
    if any(one.query.logits for one in queries):
        raw = logits_of(task, logits, batch)
        for answer, one, given in zip(answers, queries, raw, strict=True):
            if one.query.logits:
                answer["logits"] = given["logits"].tolist()
    return answers


def logits_of(task: LoadedTask, logits: np.ndarray, batch: Batch) -> list[dict[str, Any]]:
    """``{"logits"}`` for each query: an array ``(outputs,)``, or ``(tokens, outputs)``."""
    if not task.spec.reads_every_token:
        return [{"logits": array} for array in logits]
    return [
        {"logits": array[: len(row.input_ids)]}
        for array, row in zip(logits, batch.rows, strict=True)
    ]
