"""The settings of an encoder: out of ``config.json``, and no further than its weights bear them out.

Only the settings that the layers depend on are taken (:attr:`centra.families.base.Family.settings`),
so nothing else that a ``config.json`` says can change, slow or stop what is computed. Sizes must be
those of the tensors; so nothing is made of a size that the file does not hold.

A ``backbone.json`` holds the same settings, and is held to the same rules, wherever it comes from.
"""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

from centra.errors import FormatError, IncompatibleError, first_line
from centra.families import FAMILIES, family_named

if TYPE_CHECKING:
    from collections.abc import Mapping

    from centra.families.base import Family
    from centra.families.description import Shapes

__all__ = [
    "check_published",
    "check_settings",
    "encoder_shapes",
    "position_count",
    "read_family",
    "read_head_settings",
    "read_settings",
    "transformers_config",
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


def read_family(raw: Mapping[str, Any], where: str) -> Family:
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
        return family_named(model_type)
    except IncompatibleError as error:
        raise IncompatibleError(f"{where}: {error}", code=error.code, **error.data) from error


def read_settings(
    raw: Mapping[str, Any], family: Family, shapes: Mapping[str, tuple[int, ...]], where: str
) -> dict[str, Any]:
    """An encoder's settings, the family's defaults where ``config.json`` says nothing.

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
    config = transformers_config(raw, family, where)
    settings = dict(family.defaults or {}) | _stated(raw, family)
    if family.transformers is not None:
        settings |= {key: getattr(config, key) for key in family.settings if hasattr(config, key)}
    for key in family.settings.keys() - settings.keys():
        # Of a size that may be left out, the tensor tells it.
        shape = shapes.get(family.settings[key].tensor, ())
        if family.settings[key].axis < len(shape):
            settings[key] = shape[family.settings[key].axis]
    if missing := sorted(family.settings.keys() - settings.keys()):
        raise FormatError(f"{where}: its config.json says no {missing[0]}")
    check_published(raw, settings, family, where)
    _check_sizes(settings, family, shapes, where)
    _check_layers(settings, family, shapes, where)
    check_settings(settings, family, where, "config.json")
    return {key: family.settings[key].kept_as(value) for key, value in settings.items()}


def read_head_settings(config: Any, family: Family) -> dict[str, Any]:
    """What the classifiers of a fine-tuned checkpoint depend on.

    Args:
        config: of :func:`transformers_config`, with heads.
        family: the encoder family.
    """
    return {key: getattr(config, key) for key in family.head_settings}


def check_published(
    raw: Mapping[str, Any], settings: Mapping[str, Any], family: Family, where: str
) -> None:
    """Refuse a model that the code it was published with computes otherwise than transformers.

    Args:
        raw: the content of ``config.json``, which may have words of both.
        settings: what transformers reads there.
        family: the encoder family; see :attr:`Family.published_as`.
        where: what to call the model in errors.

    Raises:
        FormatError: a setting is meant otherwise; it is named.
    """
    for key, meant in family.published_as(settings).items():
        if raw.get(key) not in (None, meant):
            raise FormatError(
                f"{where}: config.json says {key} {raw[key]!r:.60}, which is of the code that the model "
                f"was published with; transformers does not read it, and computes with {meant!r:.60}. "
                "If it can compute with the former, load the weights with a config in its own words "
                "and save them again; if not, the model cannot be served."
            )


def transformers_config(
    raw: Mapping[str, Any], family: Family, where: str, *, heads: bool = False
) -> Any:
    """A transformers config with the encoder's settings, and with nothing else of ``config.json``.

    Args:
        raw: the content of ``config.json``.
        family: the encoder family that it names.
        where: what to call the model in errors.
        heads: whether the settings of its classifiers are taken, too.

    Returns:
        Of the family's class; of the class of all where transformers does not have the family.

    Raises:
        FormatError: a setting is no such value; it is named.
    """
    settings = _stated(raw, family)
    if heads:
        settings |= {key: raw[key] for key in family.head_settings if key in raw}
    if family.transformers is None:
        from transformers import PretrainedConfig

        kind: Any = PretrainedConfig
    else:
        kind = family.transformers.named(family.transformers.config)
    for alias, key in kind.attribute_map.items():
        if key not in family.settings or alias not in raw:
            continue
        if settings.setdefault(key, raw[alias]) != raw[alias]:
            raise FormatError(
                f"{where}: config.json says {key} {settings[key]!r:.60} and {alias} "
                f"{raw[alias]!r:.60}, which are one setting"
            )
    for key, value in settings.items():
        _check_value(key, value, family, where, "config.json")
    for key in family.older_settings.keys() & raw.keys():
        _check_value(key, raw[key], family, where, "config.json")
        settings[key] = raw[key]
    # Not the layers', but transformers looks for a tokenizer's class here.
    if isinstance(raw.get("tokenizer_class"), str):
        settings["tokenizer_class"] = raw["tokenizer_class"]
    try:
        # transformers writes into the settings that it is given.
        return kind(**deepcopy(settings))
    except Exception as error:
        raise FormatError(f"{where}: cannot use its config.json ({first_line(error)})") from error


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
    if odd := settings.keys() ^ {*family.settings}:
        what = "lacks" if min(odd) in family.settings else "has an unknown setting"
        raise FormatError(f"{where}: {document} {what} {min(odd)!r:.60}")
    for key, value in settings.items():
        _check_value(key, value, family, where, document)
    heads, hidden = settings[family.heads_key], settings[family.hidden_key]
    if hidden % heads:
        raise FormatError(
            f"{where}: {document} says {family.heads_key} {heads!r:.60}, which does not "
            f"divide the hidden size of {hidden}"
        )
    if (contradiction := family.contradiction(settings)) is not None:
        raise FormatError(f"{where}: {document} says {contradiction}")
    _check_padding(settings, family, where, document)


def position_count(settings: Mapping[str, Any], family: Family) -> int:
    """How many tokens an encoder has positions for."""
    count = int(settings[family.max_length_key])
    # Positions of these families count from the padding's id.
    return count - settings["pad_token_id"] - 1 if family.position_offset else count


def encoder_shapes(settings: Mapping[str, Any], family: Family) -> Shapes:
    """The shape of each tensor of a whole encoder, by names without a checkpoint's prefix.

    Args:
        settings: see :func:`check_settings`.
        family: the encoder family.
    """
    shapes: Shapes = {}
    for number in range(settings[family.layers_key] + 1):
        shapes |= family.shard_shapes(settings, number)
    return shapes


def _stated(raw: Mapping[str, Any], family: Family) -> dict[str, Any]:
    """The family's settings that a ``config.json`` has."""
    return {key: raw[key] for key in family.settings if key in raw}


def _refuse_unsupported(raw: Mapping[str, Any], where: str) -> None:
    for key, reason in _UNSUPPORTED.items():
        if raw.get(key):
            raise IncompatibleError(f"{where}: {reason}")
    if raw.get("position_embedding_type") not in (None, "absolute"):
        raise IncompatibleError(
            f"{where}: only absolute position embeddings are supported; config.json says "
            f"position_embedding_type {raw['position_embedding_type']!r:.60}"
        )


def _check_value(key: str, value: Any, family: Family, where: str, document: str) -> None:
    setting = {**family.older_settings, **family.head_settings, **family.settings}[key]
    if not setting.fits(value):
        raise FormatError(
            f"{where}: {document} says {key} {value!r:.60}; expected {setting.expected}"
        )


def _check_sizes(
    settings: Mapping[str, Any], family: Family, shapes: Mapping[str, tuple[int, ...]], where: str
) -> None:
    for key, setting in family.settings.items():
        if not setting.tensor:
            continue
        shape = shapes.get(setting.tensor)
        if shape is None:
            raise FormatError(f"{where}: has no weights for {setting.tensor}")
        if len(shape) <= setting.axis or shape[setting.axis] != settings[key]:
            raise FormatError(
                f"{where}: config.json says {key} {settings[key]!r:.60}, but tensor "
                f"{setting.tensor} is {shape}. The two are of different models; save the model again."
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
    stated = family.stored_layers(settings)
    if len(numbers) != stated or max(numbers, default=-1) != stated - 1:
        keys = family.groups_key or "num_hidden_layers, n_layers"
        raise FormatError(
            f"{where}: config.json says {stated!r:.60} {'groups of ' if family.groups_key else ''}layers "
            f"({keys}), but the weights have {len(numbers)}. The two are of different models; save the "
            "model again."
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
