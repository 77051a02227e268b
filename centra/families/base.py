"""What Centra must be told of an encoder family; each says it in a file of its own.

Everything else treats an encoder as embeddings followed by layers. A family says which settings they
depend on and how they look (:mod:`centra.families.description`), what they are called in checkpoints,
and where transformers has them.

Layers are numbered from 1, and keep their number: layer i of a task module on tap t is number t + i.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from centra.families.heads import CheckpointHead

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from centra.families.description import Embeddings, Layer, Norm, Shapes
    from centra.modeling.shared_state import SharedState

__all__ = [
    "ACTIVATION",
    "ACTIVATIONS",
    "DROPOUT",
    "EPSILON",
    "SIZE",
    "SWITCH",
    "TOKEN_ID",
    "Family",
    "Setting",
    "TransformersClasses",
    "one_of",
    "size_of",
]


ACTIVATIONS = frozenset(
    (
        *("gelu", "gelu_10", "gelu_accurate", "gelu_fast", "gelu_new", "gelu_python"),
        *("gelu_python_tanh", "gelu_pytorch_tanh", "hardswish", "laplace", "leaky_relu", "linear"),
        *("mish", "quick_gelu", "relu", "relu2", "relu6", "sigmoid", "silu", "sqrtsoftplus"),
        *("swish", "tanh"),
    )
)
"""transformers' names of activations that have no weights of their own."""


def _unchanged(value: Any) -> Any:
    return value


@dataclass(frozen=True, kw_only=True, eq=False)
class Setting:
    """What values a setting may have."""

    fits: Callable[[Any], bool]
    expected: str
    """In words, for errors."""
    tensor: str = ""
    """The tensor whose size it is, named as in the encoder; empty for settings that are no sizes."""
    axis: int = 0
    kept_as: Callable[[Any], Any] = _unchanged
    """One form of values that mean the same, for a backbone's digest: 0 is 0.0."""


def _whole(value: Any) -> bool:
    return type(value) is int


def _number(value: Any) -> bool:
    return type(value) in (int, float)


ACTIVATION = Setting(
    fits=lambda value: type(value) is str and value in ACTIVATIONS,
    expected="an activation of transformers that has no weights of its own",
)
DROPOUT = Setting(
    fits=lambda value: _number(value) and 0 <= value <= 1,
    expected="a number from 0 to 1",
    kept_as=float,
)
"""Of no weight in answers."""
EPSILON = Setting(
    fits=lambda value: _number(value) and 0 < value <= 1,
    expected="a small positive number",
    kept_as=float,
)
SIZE = Setting(fits=lambda value: _whole(value) and value >= 1, expected="a positive whole number")
SWITCH = Setting(fits=lambda value: type(value) is bool, expected="true or false")
TOKEN_ID = Setting(
    fits=lambda value: value is None or (_whole(value) and value >= 0), expected="a token id"
)


def one_of(*values: str) -> Setting:
    """A setting that is one of some texts."""
    return Setting(
        fits=lambda value: type(value) is str and value in values, expected=" or ".join(values)
    )


def size_of(tensor: str, axis: int = 0) -> Setting:
    """A setting that is the size of a tensor."""
    return replace(SIZE, tensor=tensor, axis=axis)


def _config_alone(config: Any, number: int) -> tuple[Any, ...]:  # noqa: ARG001 - see below
    return (config,)


def _padding(shared: SharedState, layer: Layer) -> dict[str, Any]:  # noqa: ARG001 - see below
    return {"attention_mask": shared.mask}


@dataclass(frozen=True, kw_only=True, eq=False)
class TransformersClasses:
    """Where transformers has a family: the names of its module and of the classes in it."""

    module: str
    config: str
    model: str
    embeddings: str | None
    """None for one that is a plain table in the model itself."""
    layer: str
    convolution: tuple[str, str] = "", ""
    """Of a layer that has one: what it is called within the layer, and its class."""
    layer_arguments: Callable[[Any, int], tuple[Any, ...]] = _config_alone
    """What the class of a layer is made with, out of a config of its own and the layer's number."""
    layer_inputs: Callable[[SharedState, Layer], dict[str, Any]] = _padding
    """What a layer of such a description takes beside hidden states, out of what all layers share."""

    def named(self, name: str) -> Any:
        """A class of the module, which is imported now."""
        return getattr(importlib.import_module(self.module), name)


@dataclass(frozen=True, kw_only=True, eq=False)
class Family:
    """An encoder family."""

    model_type: str
    """What its ``config.json`` calls it."""
    settings: Mapping[str, Setting]
    """Those that embeddings and layers depend on; nothing else enters the backbone's digest."""
    older_settings: Mapping[str, Setting] = field(default_factory=dict)
    """What older ``config.json`` say instead of some of them, which transformers understands."""
    published_as: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda _: {}
    """What settings are in the words of the code that checkpoints were published with before transformers
    had the family. transformers reads none of them, so a ``config.json`` must not say otherwise."""
    contradiction: Callable[[Mapping[str, Any]], str | None] = lambda _: None
    """What settings say that cannot all be so, for errors; None of good ones."""
    embeddings: Callable[[Mapping[str, Any]], Embeddings]
    """How its embeddings look with some settings."""
    layer: Callable[[Mapping[str, Any], int], Layer]
    """How the layer of a number looks with some settings."""
    final_norm: Callable[[Mapping[str, Any]], Norm] | None = None
    """The norm behind the last layer, where layers end without one. A task module has its own, as
    ``head.norm``, for its branch may end elsewhere."""
    more_layers: Callable[[Mapping[str, Any], int], Mapping[str, Any]] = lambda *_: {}
    """What else settings say otherwise where there are so many layers, the first of them the same."""
    layers_alike: bool = True
    """Whether all layers have the same tensors, wherever they stand."""

    layer_prefix: str
    """Where layer i's tensors lie in the encoder's state dict, before ``<i>.`` counted from 0."""
    groups_key: str | None = None
    """The setting that says into how many groups layers fall, where those of a group are one set of
    weights; it is the group's number that then stands behind the prefix. None where each has its own."""
    group_part: str = ""
    """What stands in the names of a group's tensors before those within the layer."""
    outside_layers: Mapping[str, str] = field(default_factory=dict)
    """Where parts of a layer lie that are not there: what their names begin with within the layer, and
    in the encoder's state dict."""
    prefix: str
    """Where the encoder lies inside a fine-tuned checkpoint's state dict."""
    saved_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """What ``save_pretrained`` calls some of the encoder's tensors, where that is not as the class does: a
    pattern, and the class's names of its equal parts, row by row, with the pattern's groups."""
    word_embeddings: str = "embeddings.word_embeddings.weight"
    hidden_key: str = "hidden_size"
    heads_key: str = "num_attention_heads"
    layers_key: str = "num_hidden_layers"
    max_length_key: str = "max_position_embeddings"
    position_offset: bool = False
    """Whether positions count from ``pad_token_id + 1``."""
    token_types: bool = True
    """Whether token types tell the two texts of a pair apart."""

    transformers: TransformersClasses | None
    """None for a family that Centra computes from its description alone."""
    defaults: Mapping[str, Any] | None = None
    """The settings that a ``config.json`` may leave out, where transformers' config has none for them."""
    unused: str = ""
    """A pattern for the encoder's tensors that lie in some checkpoints and are read by no class."""
    pooler: str | None = "pooler.dense"
    """What its encoder class calls one, which lies in checkpoints even where no head reads it."""
    head_settings: Mapping[str, Setting] = field(default_factory=dict)
    """Those that the classifiers of its fine-tuned checkpoints depend on, and no layer."""
    sentence_head: Callable[[Mapping[str, Any]], CheckpointHead]
    """Sentence classifier of a fine-tuned checkpoint, with some settings."""
    token_head: Callable[[Mapping[str, Any]], CheckpointHead] = lambda _: CheckpointHead(
        out="classifier"
    )
    """Its classifier of tokens."""

    @property
    def class_name(self) -> str:
        """What its encoder is called in messages."""
        return self.model_type if self.transformers is None else self.transformers.model

    def of_depth(self, settings: Mapping[str, Any], count: int) -> dict[str, Any]:
        """The settings of an encoder with so many layers, each with weights of its own."""
        cut = {**settings, self.layers_key: count}
        if self.groups_key is not None:
            cut[self.groups_key] = count
        return cut | dict(self.more_layers(settings, count))

    def stored_layers(self, settings: Mapping[str, Any]) -> int:
        """Of how many layers there are weights: of all, or of as many as there are groups of them."""
        return int(settings[self.groups_key or self.layers_key])

    def stored_layer(self, settings: Mapping[str, Any], number: int) -> int:
        """Which of them a layer has, counted from 0."""
        # As transformers computes it, where the groups are not of one size.
        return int((number - 1) / (settings[self.layers_key] / self.stored_layers(settings)))

    def same_weights(self, settings: Mapping[str, Any], number: int) -> list[int]:
        """The numbers of the layers that have the weights of one; for most families its own alone."""
        stored = self.stored_layer(settings, number)
        layers = range(1, settings[self.layers_key] + 1)
        return [layer for layer in layers if self.stored_layer(settings, layer) == stored]

    def encoder_name(self, settings: Mapping[str, Any], number: int, name: str) -> str:
        """What a layer's tensor is called in the encoder, without a checkpoint's prefix.

        Args:
            settings: the encoder's.
            number: the layer's, from 1.
            name: within the layer.
        """
        for within, outside in self.outside_layers.items():
            if name.startswith(within):
                return outside + name.removeprefix(within)
        return f"{self.layer_prefix}{self.stored_layer(settings, number)}.{self.group_part}{name}"

    def head_norm(self, settings: Mapping[str, Any]) -> Norm | None:
        """The norm that the heads of task modules begin with."""
        return None if self.final_norm is None else replace(self.final_norm(settings), name="norm")

    def shard_shapes(self, settings: Mapping[str, Any], number: int) -> Shapes:
        """The shapes in a backbone's shard: of a layer, or 0 for the embeddings; in the encoder's names.

        The norm behind the last layer is in that layer's shard, and so is frozen with it.
        """
        if number == 0:
            return self.embeddings(settings).shapes
        shapes = self.layer(settings, number).shapes
        found = {self.encoder_name(settings, number, name): shape for name, shape in shapes.items()}
        if self.final_norm is not None and number == settings[self.layers_key]:
            found |= self.final_norm(settings).shapes
        return found
