"""A release whose batches a test holds up, breaks and looks at."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from centra.data.inputs import Input
from centra.errors import DataError
from centra.runtime.queries import EncodedQuery, TaskResult
from centra.tokenization.text_encoder import Row

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from centra.errors import CentraError
    from centra.runtime.queries import Query


@dataclass(eq=False)
class FakeRelease:
    """Answers each text with its own words: ``{"label": "TASK of NAME: TEXT"}``."""

    name: str = "first"
    tasks: list[str] = field(default_factory=lambda: ["intent", "mood"])
    engine: str = "onnx"
    broken: set[str] = field(default_factory=set)
    """Tasks whose branch fails."""
    batches: list[list[str]] = field(default_factory=list)
    """The texts of each batch."""
    closed: bool = False
    go: threading.Event = field(default_factory=threading.Event)
    """While it is not set, batches wait before they are computed."""
    end: threading.Event = field(default_factory=threading.Event)
    """While it is not set, a batch waits before its last task."""
    begun: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    """Released once for each batch that begins."""

    def __post_init__(self) -> None:
        self.go.set()
        self.end.set()
        self.digest = self.name.ljust(64, "0")
        self.manifest = SimpleNamespace(tasks={})

    def encode(
        self, queries: Sequence[Query], *, first: int = 1
    ) -> list[EncodedQuery | CentraError]:
        return [self._encode(query) for query in queries]

    def _encode(self, query: Query) -> EncodedQuery | CentraError:
        item = Input.parse(query.input)
        if "bad" in item.text:
            return DataError("a bad text")
        ids = [1] * len(item.text.split())
        row = Row(input_ids=ids, token_type_ids=ids, offsets=[])
        return EncodedQuery(
            query=query,
            input=item,
            tasks=query.tasks or tuple(self.tasks),
            rows={"": row},
            encoded_by=self,
        )

    def answer(self, batch: Sequence[EncodedQuery]) -> Iterator[TaskResult]:
        texts = [one.input.text for one in batch]
        self.batches.append(texts)
        self.begun.release()
        assert self.go.wait(30)
        if any("trunk fails" in text for text in texts):
            raise RuntimeError("the trunk failed")
        for task in self.tasks:
            if task == self.tasks[-1]:
                assert self.end.wait(30)
            places = tuple(i for i, one in enumerate(batch) if task in one.tasks)
            seconds: dict[str, Any] = {"trunk_seconds": 0.25, "branch_seconds": 0.5}
            if task in self.broken:
                error = RuntimeError(f"{task} failed")
                yield TaskResult(task=task, places=places, error=error, **seconds)
            elif places:
                answers = [{"label": f"{task} of {self.name}: {texts[i]}"} for i in places]
                yield TaskResult(task=task, places=places, answers=answers, **seconds)

    def close(self) -> None:
        self.closed = True
