"""The settings of an encoder: out of ``config.json``, and no further than its weights bear them out.

Only the settings that the layers depend on are taken (:attr:`centra.families.table.Family.config_keys`),
so nothing else that a ``config.json`` says can change, slow or stop what is computed. Sizes must be
those of the tensors; so nothing is made of a size that the file does not hold.

A ``backbone.json`` holds the same settings, and is held to the same rules, wherever it comes from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from centra.errors import FormatError, IncompatibleError, first_line
from centra.families.table import ACTIVATIONS, FAMILIES, Family, family_of, transformers_class

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "check_settings",
    "embedding_shapes",
    "encoder_config",
    "encoder_family",
    "encoder_settings",
    "encoder_shapes",
    "layer_shapes",
    "positions",
]

# Settings under which transformers computes something that Centra does not.
_UNSUPPORTED = {
    "is_decoder": "is a decoder; Centra serves encoders",
    "add_cross_attention": "looks at another encoder's states; Centra serves encoders alone",
    "is_encoder_decoder": "is half of an encoder-decoder; Centra serves encoders alone",
    "per_layer_config": "gives single layers settings of their own (per_layer_config), which Centra "
    "does not know",
    "pruned_heads": "has pruned attention heads, so its layers are not all alike; Centra serves "
    "whole layers",
    "quantization_config": "is quantised; save it in float32, float16 or bfloat16 "
    "(model.dequantize() where it can)",
}


def encoder_family(raw: Mapping[str, Any], where: str) -> Family:
    """The family that a ``config.json`` names.

    Args:
        raw: its content.
        where: what to call the model in errors.

    Raises:
        FormatError: it names none.
        IncompatibleError: Centra does not know it.
    """
    model_type = raw.get("model_type")
    if not isinstance(model_type, str):
        raise FormatError(
            f"{where}: its config.json says model_type {model_type!r:.60}; expected one of "
            f"{', '.join(sorted(FAMILIES))}. Save the model with its save_pretrained."
        )
    try:
        return family_of(model_type)
    except IncompatibleError as error:
        raise IncompatibleError(f"{where}: {error}") from error


def encoder_config(
    raw: Mapping[str, Any], family: Family, shapes: Mapping[str, tuple[int, ...]], where: str
) -> Any:
    """A transformers config with the encoder's settings, the family's defaults where it says nothing.

    Args:
        raw: the content of ``config.json``.
        family: the encoder family that it names.
        shapes: of the encoder's tensors, by names without a checkpoint's prefix.
        where: what to call the model in errors.

    Raises:
        IncompatibleError: a setting that Centra does not serve.
        FormatError: a setting is no such value, or contradicts the weights; it is named.
    """
    _refuse_unsupported(raw, where)
    config = _typed(raw, family, where)
    settings = encoder_settings(config, family)
    _check_sizes(settings, family, shapes, where)
    _check_layers(settings, family, shapes, where)
    check_settings(settings, family, where, "config.json")
    return config


def encoder_settings(config: Any, family: Family) -> dict[str, Any]:
    """The settings of a transformers config that the family's layers depend on."""
    return {key: getattr(config, key) for key in family.config_keys}


def check_settings(settings: Mapping[str, Any], family: Family, where: str, document: str) -> None:
    """Refuse settings that no encoder of a family can have, whatever its weights.

    Args:
        settings: must be just those that the family's layers depend on.
        family: the encoder family.
        where: what to call the model in errors.
        document: what the settings stand in, for errors.

    Raises:
        FormatError: one is missing, is not the family's, is no such value, or contradicts another;
            it is named.
    """
    if odd := settings.keys() ^ {*family.config_keys}:
        what = "lacks" if min(odd) in family.config_keys else "has an unknown setting"
        raise FormatError(f"{where}: {document} {what} {min(odd)!r:.60}")
    for key, value in settings.items():
        _check_value(key, value, where, document)
    heads, hidden = settings[family.names.heads_key], settings[family.hidden_key]
    if hidden % heads:
        raise FormatError(
            f"{where}: {document} says {family.names.heads_key} {heads!r:.60}, which does not "
            f"divide the hidden size of {hidden}"
        )
    _check_padding(settings, family, where, document)


def positions(settings: Mapping[str, Any], family: Family) -> int:
    """How many tokens an encoder has positions for."""
    count = int(settings[family.max_length_key])
    # Positions of these families count from the padding's id.
    return count - settings["pad_token_id"] - 1 if family.position_offset else count


def embedding_shapes(settings: Mapping[str, Any], family: Family) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor of an encoder's embeddings, by names without a checkpoint's prefix.

    Args:
        settings: see :func:`check_settings`.
        family: the encoder family.
    """
    hidden = settings[family.hidden_key]
    width = settings.get("embedding_size", hidden)
    tables = {"word": "vocab_size", "position": family.max_length_key}
    if "type_vocab_size" in settings:
        tables["token_type"] = "type_vocab_size"  # noqa: S105 - no password
    shapes: dict[str, tuple[int, ...]] = {
        f"embeddings.{table}_embeddings.weight": (settings[key], width)
        for table, key in tables.items()
    }
    shapes |= dict.fromkeys(("embeddings.LayerNorm.weight", "embeddings.LayerNorm.bias"), (width,))
    if width != hidden:
        shapes["embeddings_project.weight"] = (hidden, width)
        shapes["embeddings_project.bias"] = (hidden,)
    return shapes


def layer_shapes(settings: Mapping[str, Any], family: Family) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor of one layer, by names within the layer; as embedding_shapes."""
    hidden, inner = settings[family.hidden_key], settings[family.inner_key]
    names = family.names
    rows = dict.fromkeys((names.query, names.key, names.value, names.attention_output), hidden)
    rows |= {names.inner: inner, names.outer: hidden}
    shapes: dict[str, tuple[int, ...]] = {
        f"{name}.weight": (count, inner if name == names.outer else hidden)
        for name, count in rows.items()
    }
    rows |= dict.fromkeys((names.attention_norm, names.norm), hidden)
    shapes |= dict.fromkeys((f"{names.attention_norm}.weight", f"{names.norm}.weight"), (hidden,))
    return shapes | {f"{name}.bias": (count,) for name, count in rows.items()}


def encoder_shapes(settings: Mapping[str, Any], family: Family) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor of a whole encoder; as :func:`embedding_shapes`."""
    layer = layer_shapes(settings, family)
    return embedding_shapes(settings, family) | {
        f"{family.layer_prefix}{i}.{name}": shape
        for i in range(settings[family.layers_key])
        for name, shape in layer.items()
    }


def _refuse_unsupported(raw: Mapping[str, Any], where: str) -> None:
    for key, reason in _UNSUPPORTED.items():
        if raw.get(key):
            raise IncompatibleError(f"{where}: {reason}")
    if raw.get("position_embedding_type") not in (None, "absolute"):
        raise IncompatibleError(
            f"{where}: only absolute position embeddings are supported; config.json says "
            f"position_embedding_type {raw['position_embedding_type']!r:.60}"
        )


def _typed(raw: Mapping[str, Any], family: Family, where: str) -> Any:
    kind = transformers_class(family, family.config)
    settings = {key: raw[key] for key in family.config_keys if key in raw}
    for alias, key in kind.attribute_map.items():
        if key not in family.config_keys or alias not in raw:
            continue
        if settings.setdefault(key, raw[alias]) != raw[alias]:
            raise FormatError(
                f"{where}: config.json says {key} {settings[key]!r:.60} and {alias} "
                f"{raw[alias]!r:.60}, which are one setting"
            )
    for key, value in settings.items():
        _check_value(key, value, where, "config.json")
    # Not the layers', but transformers looks for a tokenizer's class here.
    if isinstance(raw.get("tokenizer_class"), str):
        settings["tokenizer_class"] = raw["tokenizer_class"]
    try:
        return kind(**settings)
    except Exception as error:
        raise FormatError(f"{where}: cannot use its config.json ({first_line(error)})") from error


def _check_value(key: str, value: Any, where: str, document: str) -> None:
    number, whole = type(value) in (int, float), type(value) is int
    match key:
        case "hidden_act" | "activation":
            fits = type(value) is str and value in ACTIVATIONS
            expected = "an activation of transformers that has no weights of its own"
        case "layer_norm_eps":
            fits, expected = number and 0 < value <= 1, "a small positive number"
        case "pad_token_id":
            fits, expected = value is None or (whole and value >= 0), "a token id"
        case "sinusoidal_pos_embds":
            fits, expected = type(value) is bool, "true or false"
        case _ if "dropout" in key:
            fits, expected = number and 0 <= value <= 1, "a number from 0 to 1"
        case _:
            fits, expected = whole and value >= 1, "a positive whole number"
    if not fits:
        raise FormatError(f"{where}: {document} says {key} {value!r:.60}; expected {expected}")


def _check_sizes(
    settings: Mapping[str, Any], family: Family, shapes: Mapping[str, tuple[int, ...]], where: str
) -> None:
    first = f"{family.layer_prefix}0."
    norm, inner = f"{first}{family.names.attention_norm}.bias", f"{first}{family.names.inner}.bias"
    sizes = {
        "hidden_size": (norm, 0),
        "dim": (norm, 0),
        "intermediate_size": (inner, 0),
        "hidden_dim": (inner, 0),
        "vocab_size": ("embeddings.word_embeddings.weight", 0),
        "embedding_size": ("embeddings.word_embeddings.weight", 1),
        "max_position_embeddings": ("embeddings.position_embeddings.weight", 0),
        "type_vocab_size": ("embeddings.token_type_embeddings.weight", 0),
    }
    for key in (key for key in sizes if key in family.config_keys):
        name, axis = sizes[key]
        shape = shapes.get(name)
        if shape is None:
            raise FormatError(f"{where}: has no weights for {name}")
        if len(shape) <= axis or shape[axis] != settings[key]:
            raise FormatError(
                f"{where}: config.json says {key} {settings[key]!r:.60}, but tensor {name} is "
                f"{shape}. The two are of different models; save the model again."
            )


def _check_layers(
    settings: Mapping[str, Any], family: Family, shapes: Mapping[str, tuple[int, ...]], where: str
) -> None:
    numbers = {
        int(number)
        for name in shapes
        if name.startswith(family.layer_prefix)
        and (number := name.removeprefix(family.layer_prefix).partition(".")[0]).isdecimal()
        and len(number) < 10
    }
    stated = settings[family.layers_key]
    if len(numbers) != stated or max(numbers, default=-1) != stated - 1:
        raise FormatError(
            f"{where}: config.json says {stated!r:.60} layers (num_hidden_layers, n_layers), but the "
            f"weights have {len(numbers)}. The two are of different models; save the model again."
        )


def _check_padding(settings: Mapping[str, Any], family: Family, where: str, document: str) -> None:
    pad, count = settings["pad_token_id"], settings[family.max_length_key]
    if pad is not None and pad >= settings["vocab_size"]:
        raise FormatError(
            f"{where}: {document} says pad_token_id {pad!r:.60}, but there are only "
            f"{settings['vocab_size']} embeddings"
        )
    # Positions of these families count from the padding's id.
    if family.position_offset and (pad is None or count <= pad + 1):
        raise FormatError(
            f"{where}: {document} says pad_token_id {pad!r:.60}; expected an id below the "
            f"{count} positions, since positions count from it"
        )
