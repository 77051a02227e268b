"""Answers to a chunk of rows: tokenised together, and computed in batches of like length."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from centra.data.inputs import Input
from centra.errors import CentraError
from centra.formats.names import distinct_names
from centra.runtime.queries import EncodedQuery, Query
from centra.serving.shape import usual_shape
from centra.system.processors import processors

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from centra.data.readers import Rows
    from centra.runtime import Release

__all__ = ["Scorer"]

Encoded = list["EncodedQuery | str"]
"""Of each row what is to be computed, or why there is nothing."""

_TOKENISED = 64
"""Texts that are tokenised at once: what the tokenizer makes of them takes more than what is kept."""


class Scorer:
    """A release, and what is asked of it."""

    def __init__(
        self,
        release: Release,
        *,
        tasks: Collection[str] | str | None = None,
        top_k: int | None = None,
    ) -> None:
        """Ask something of a release.

        Args:
            release, tasks, top_k: as for :meth:`centra.Release.predict`.

        Raises:
            NotFoundError: a task is not loaded.
            UsageError: ``top_k`` is no whole number from 1 on.
        """
        self._release = release
        release.predict([], tasks, top_k=top_k)  # Refuses what no input could be asked.
        self._tasks = None if tasks is None else tuple(distinct_names(tasks))
        self._top_k = top_k
        self._shape = usual_shape(release.engine, threads=processors(), device=None)

    @property
    def kinds(self) -> dict[str, str]:
        """The kind of each task that may answer."""
        entries = self._release.manifest.tasks
        return {task: entries[task].kind for task in sorted(self._tasks or self._release.tasks)}

    def score(self, rows: Rows) -> list[dict[str, Any] | str]:
        """The answers of each row by task, or why it has none; see :meth:`encode` and :meth:`answer`."""
        return self.answer(self.encode(rows))

    def encode(self, rows: Rows) -> Encoded:
        """Check and tokenise the inputs of some rows. It may run beside anything.

        Raises:
            UsageError: the release is closed.
        """
        found: Encoded = [item if isinstance(item, str) else "" for item in rows.inputs]
        own = [i for i, item in enumerate(rows.inputs) if isinstance(item, Input)]
        for start in range(0, len(own), _TOKENISED):
            some = own[start : start + _TOKENISED]
            queries = [
                Query(input=rows.inputs[i], tasks=self._tasks, top_k=self._top_k) for i in some
            ]
            for number, (i, one) in enumerate(
                zip(some, self._release.encode(queries), strict=True), 1
            ):
                if isinstance(one, CentraError):
                    # It names the input by its number among these.
                    reason = str(one).removeprefix(f"input {number}: ")
                    found[i] = f"{rows.places[i]}: {reason}"
                else:
                    found[i] = one
        return found

    def answer(self, encoded: Encoded) -> list[dict[str, Any] | str]:
        """Compute.

        Returns:
            Of each row its answers by task, sorted, or why it has none.

        Raises:
            Exception: a branch or a layer failed, which is no fault of a row.
            UsageError: the release is closed, or on a GPU and was loaded before this process was
                forked.
        """
        answers: list[dict[str, Any]] = [{} for _ in encoded]
        for places in self._batches(encoded):
            batch = [one for i in places if isinstance(one := encoded[i], EncodedQuery)]
            for result in self._release.answer(batch):
                if result.error is not None:
                    raise result.error
                for place, answer in zip(result.places, result.answers, strict=True):
                    answers[places[place]][result.task] = answer
        return [
            one if isinstance(one, str) else dict(sorted(answer.items()))
            for one, answer in zip(encoded, answers, strict=True)
        ]

    def _batches(self, encoded: Encoded) -> Iterator[Sequence[int]]:
        """The rows that are computed together: those of like length, so many tokens at most."""
        lengths = {i: one.tokens for i, one in enumerate(encoded) if isinstance(one, EncodedQuery)}
        batch: list[int] = []
        tokens = 0
        for i in sorted(lengths, key=lengths.__getitem__):
            cost = self._shape.cost(lengths[i])
            if batch and tokens + cost > self._shape.tokens:
                yield batch
                batch, tokens = [], 0
            batch.append(i)
            tokens += cost
        if batch:
            yield batch
