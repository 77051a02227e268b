"""A request of the Open Inference Protocol while another release takes over."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

import centra
from centra.errors import NotFoundError
from centra.releases.folder_writing import write_folder
from centra.serving import Batcher
from centra.serving.oip.inference import InferRequest, InferResponse, infer
from centra.serving.oip.tensors import InputTensor
from tests import support

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from centra.formats.task_module import TaskModule
    from centra.runtime import Release
    from centra.store import LocalStore

TEXT = InputTensor(name="text", datatype="BYTES", shape=[1], data=["wake me at seven"])


@pytest.fixture
def load(
    tmp_path: Path,
    tiny_backbone: support.Backbone,
    backbone_store: LocalStore,
    make_module: Callable[..., TaskModule],
) -> Callable[[str], Release]:
    """Loads a release whose task intent is of some kind."""

    def load(kind: str) -> Release:
        modules = {"intent": make_module(kind)}
        manifest = support.put_release(modules, [tiny_backbone.spec], backbone_store)
        write_folder(manifest, backbone_store, tmp_path / kind)
        return centra.load_release(tmp_path / kind, engine="onnx", threads=1)

    return load


@pytest.fixture
def ask(load: Callable[[str], Release]) -> Callable[..., InferResponse]:
    """Asks the task intent while another release takes over, in which it has several labels."""

    def ask(**options: Any) -> InferResponse:
        async def main() -> InferResponse:
            first = load("classification")
            async with Batcher(first) as batcher:
                before = batcher.served
                after = replace(before, release=load("multilabel"), versions={"intent": "2.0"})

                async def swap_and_submit(queries: Any, *, seconds: float | None) -> Any:
                    if batcher.served is before:
                        batcher.swap(after)
                    return await batcher.submit(queries, timeout=seconds)

                pinned = options.pop("pinned", False)
                version = before.module("intent") if pinned else ""
                request = InferRequest(model="intent", version=version, inputs=[TEXT], **options)
                try:
                    channel = batcher.channels.choose()
                    return await infer(channel, request, swap_and_submit, most_inputs=10)
                finally:
                    first.close()

        return asyncio.run(main())

    return ask


@pytest.mark.parametrize("outputs", [(), ("labels", "scores")])
def test_the_release_that_answers_says_version_and_outputs(
    ask: Callable[..., InferResponse], outputs: tuple[str, ...]
) -> None:
    answer = ask(outputs=outputs)
    assert answer.version == "2.0"
    assert [output.name for output in answer.outputs] == ["labels", "scores"]
    assert [output.shape for output in answer.outputs] == [(1,), (1,)]


def test_a_version_that_has_gone_meanwhile_is_not_found(ask: Callable[..., InferResponse]) -> None:
    with pytest.raises(NotFoundError, match=r"served in version 2\.0"):
        ask(pinned=True)
