"""One batch of queries: the trunk once for all of them, each branch on those that ask for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from centra.kinds import kind_named
from centra.runtime.queries import EncodedQuery, TaskResult
from centra.runtime.schedule import Job, Profile, compute, compute_alone
from centra.tokenization.text_encoder import Encoded

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    from centra.runtime.engine import LoadedTask
    from centra.runtime.parts import Parts, TrunkKey
    from centra.tokenization.text_encoder import Row

__all__ = ["Batch", "Finish", "answer_batch", "answers_of", "logits_of"]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Queries that are computed together, and how a backbone reads each."""

    queries: list[EncodedQuery]
    rows: list[Row]

    def at(self, places: Sequence[int]) -> Batch:
        """Some of them."""
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
    asked: dict[TrunkKey, dict[str, list[int]]] = {}
    for place, one in enumerate(batch):
        for name in one.tasks:
            asked.setdefault(parts.trunk_of[name], {}).setdefault(name, []).append(place)
    for key, places in asked.items():
        digest, trunk = key[0], parts.trunks[key].engine
        reading = sorted({place for found in places.values() for place in found})
        index = {place: i for i, place in enumerate(reading)}
        own = Batch(
            queries=[batch[place] for place in reading],
            rows=[batch[place].rows[digest] for place in reading],
        )
        encoded = Encoded.pad(own.rows, parts.encoders[digest].pad_token_id)
        jobs = [
            _job(name, parts.tasks[name], own, [index[place] for place in found], finish)
            for name, found in places.items()
        ]
        steps = trunk.run(encoded, {job.tap for job in jobs})
        outcomes = (
            compute(parts.pool, steps, jobs)
            if profile is None
            else compute_alone(parts.pool, steps, jobs, profile)
        )
        for outcome in outcomes:
            yield TaskResult(
                task=outcome.job.name,
                places=tuple(places[outcome.job.name]),
                answers=outcome.value or [],
                error=outcome.error,
                trunk_seconds=outcome.reached - start,
                branch_seconds=outcome.done - outcome.reached,
            )


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


def _job(
    name: str, task: LoadedTask, batch: Batch, places: Sequence[int], finish: Finish
) -> Job[list[dict[str, Any]]]:
    """A task's branch on those of a batch that ask for it."""
    own = batch.at(places)

    def run(hidden_states: Any) -> list[dict[str, Any]]:
        return finish(task, task.branch.run(hidden_states)[places], own)

    # A layer on the first token alone is much shorter than one on all, and still no trifle.
    length = task.spec.depth if task.spec.reads_every_token else task.spec.depth - 0.5
    return Job(name=name, tap=task.spec.tap_layer, length=length, run=run)
