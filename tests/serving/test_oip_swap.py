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
from centra.serving.oip.inference import InferRequest, infer
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


def test_the_release_that_answers_says_version_and_outputs(load: Callable[[str], Release]) -> None:
    async def main() -> None:
        first, second = load("classification"), load("multilabel")
        with first, second:
            async with Batcher(first) as batcher:
                before = batcher.served
                after = replace(before, release=second, versions={"intent": "2.0"})

                async def swap_and_submit(queries: Any, *, seconds: float | None) -> Any:
                    batcher.swap(after)
                    return await batcher.submit(queries, timeout=seconds)

                request = InferRequest(model="intent", inputs=[TEXT])
                answer = await infer(batcher, request, swap_and_submit)
                assert (answer.version, answer.parameters["digest"]) == ("2.0", second.digest)
                assert [output.name for output in answer.outputs] == ["labels", "scores"]

                batcher.swap(before)
                pinned = replace(request, version=before.module("intent"))
                with pytest.raises(NotFoundError, match=r"served in version 2\.0"):
                    await infer(batcher, pinned, swap_and_submit)

    asyncio.run(main())
