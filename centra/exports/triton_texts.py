"""A second model repository beside Triton's: models that take texts, for images with ``tokenizers``.

An ensemble makes ids of texts once for all tasks that cut them alike, and asks the graph.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from centra.formats.template import PLAIN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from centra.exports.base import Source
    from centra.exports.graphs.merged import MergedGraph

__all__ = ["write_text_models"]

_FORMS = {"single": ("texts", "tokens"), "pair": ("pairs", "pair_tokens")}
"""What the ensemble and the tokenizer of an input form are called, behind the graph's name."""


def write_text_models(
    name: str, source: Source, merged: MergedGraph, folder: Path, *, most: int
) -> list[str]:
    """Write the models of each input form that tasks take.

    Args:
        name: of the graph's model.
        source: what is exported.
        merged: its graph.
        folder: the repository, which is not there yet.
        most: inputs of a request.

    Returns:
        The tasks that put texts into a template, which no model here does.
    """
    (trunk,) = source.manifest.trunks
    tokenizer = source.reader.fetch(trunk.tokenizer["tokenizer.json"])
    specs = {task: module.spec for task, module in merged.modules.items()}
    plain = {task: spec for task, spec in specs.items() if spec.decision.template == PLAIN}
    for form, ends in _FORMS.items():
        tasks: dict[int, list[str]] = {}
        for task, spec in plain.items():
            if spec.input == form:
                longest = spec.decision.max_length or merged.backbone.max_length
                tasks.setdefault(min(longest, merged.backbone.max_length), []).append(task)
        if not tasks:
            continue
        ensemble, tokens = (f"{name}_{end}" for end in ends)
        texts = ["TEXT", "TEXT_PAIR"][: 1 + (form == "pair")]
        made = folder / tokens
        (made / "1").mkdir(parents=True)
        shutil.copyfile(Path(__file__).with_name("triton_tokens.py"), made / "1" / "model.py")
        shutil.copyfile(tokenizer, made / "tokenizer.json")
        _put(made, _tokens(tokens, texts, [*tasks], merged, most))
        # What keeps nothing on disk has a folder for its version all the same.
        (folder / ensemble / "1").mkdir(parents=True)
        (folder / ensemble / "1" / ".keep").touch()
        _put(
            folder / ensemble,
            _ensemble(ensemble, (tokens, name), texts, [*tasks.values()], merged, most=most),
        )
    return [task for task in specs if task not in plain]


def _tokens(
    name: str, texts: Sequence[str], lengths: Sequence[int], merged: MergedGraph, most: int
) -> Any:
    from tritonclient.grpc import model_config_pb2

    schema: Any = model_config_pb2
    config = schema.ModelConfig(name=name, backend="python", max_batch_size=most)
    _take(config, texts, schema)
    for number in range(len(lengths)):
        for ids in ("input_ids", "attention_mask", "token_type_ids"):
            config.output.add(name=f"{ids}_{number}", data_type=schema.TYPE_INT64, dims=[-1])
    said = {
        "max_lengths": lengths,
        "pad_token_id": merged.backbone.pad_token_id,
        "token_types": merged.backbone.token_types,
    }
    for key, value in said.items():
        config.parameters[key].string_value = json.dumps(value)
    return config


def _ensemble(
    name: str,
    models: tuple[str, str],
    texts: Sequence[str],
    tasks: Sequence[Sequence[str]],
    merged: MergedGraph,
    *,
    most: int,
) -> Any:
    from tritonclient.grpc import model_config_pb2

    schema: Any = model_config_pb2
    config = schema.ModelConfig(name=name, platform="ensemble", max_batch_size=most)
    _take(config, texts, schema)
    tokens, graph = models
    first = config.ensemble_scheduling.step.add(model_name=tokens, model_version=-1)
    first.input_map.update({text: text for text in texts})
    for number, alike in enumerate(tasks):
        ids = {given: f"{given}_{number}" for given in merged.graph.inputs}
        first.output_map.update({each: each for each in ids.values()})
        step = config.ensemble_scheduling.step.add(model_name=graph, model_version=-1)
        step.input_map.update(ids)
        for task in alike:
            output, spec = merged.outputs[task], merged.modules[task].spec
            step.output_map[output] = output
            length = [-1] if spec.reads_every_token else []
            config.output.add(name=output, data_type=schema.TYPE_FP32, dims=[*length, spec.outputs])
    return config


def _take(config: Any, texts: Sequence[str], schema: Any) -> None:
    for text in texts:
        config.input.add(name=text, data_type=schema.TYPE_STRING, dims=[1])


def _put(model: Path, config: Any) -> None:
    from google.protobuf import text_format

    text: str = text_format.MessageToString(config)
    (model / "config.pbtxt").write_text(text, encoding="utf-8")
