"""Whether two tokenizers give the same ids: compared on thousands of made-up texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from centra.tokenization.sample_texts import sample_inputs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from centra.data.inputs import Input
    from centra.tokenization.text_encoder import Row

__all__ = ["Difference", "find_difference", "inputs_to_compare"]

_WORDS = 3000  # of the vocabulary in made-up texts

_SHOWN = 60  # characters or ids in a message


@dataclass(frozen=True, kw_only=True)
class Difference:
    """An input for which Centra and transformers give other ids, or other token types."""

    input: Input
    what: str
    """``"ids"`` or ``"token types"``."""
    centra: list[int]
    transformers: list[int]

    def __str__(self) -> str:
        texts = [text for text in (self.input.text, self.input.text_pair) if text is not None]
        pairs = enumerate(zip(self.centra, self.transformers, strict=False))
        first = next((i for i, (a, b) in pairs if a != b), len(self.centra))
        centra, transformers = (_around(ids, first) for ids in (self.centra, self.transformers))
        return (
            f"for {' with '.join(_short(text) for text in texts)} Centra gives the {self.what} "
            f"{centra}, transformers {transformers}"
        )


def find_difference(
    inputs: Sequence[Input],
    rows: Sequence[Row],
    tokenizer: Any,
    max_length: int,
    *,
    token_types: bool,
) -> Difference | None:
    """The shortest input for which a model gets other ids from Centra than from transformers.

    Args:
        inputs: the inputs to compare on.
        rows: what Centra makes of them.
        tokenizer: transformers'.
        max_length: tokens to keep of each.
        token_types: whether the model takes token types other than 0, so that they count too.
    """
    found: list[Difference] = []
    for pairs in (False, True):
        batch = [i for i, item in enumerate(inputs) if (item.text_pair is not None) == pairs]
        if not batch:
            continue
        theirs = tokenizer(
            [inputs[i].text for i in batch],
            [inputs[i].text_pair for i in batch] if pairs else None,
            truncation=True,
            max_length=max_length,
        )
        types = theirs.get("token_type_ids") if token_types else None
        for number, i in enumerate(batch):
            ids = theirs["input_ids"][number]
            compared = [("ids", rows[i].input_ids, ids)]
            if token_types:
                kinds = types[number] if types else [0] * len(ids)
                compared.append(("token types", rows[i].token_type_ids, kinds))
            found += [
                Difference(input=inputs[i], what=what, centra=ours, transformers=wanted)
                for what, ours, wanted in compared
                if ours != wanted
            ]
    return min(found, key=lambda each: len(each.centra) + len(each.transformers), default=None)


def inputs_to_compare(tokenizer: Any, max_length: int) -> list[Input]:
    """Made-up inputs for a tokenizer of transformers: see :func:`centra.tokenization.sample_texts.sample_inputs`."""
    ids = range(0, len(tokenizer), max(1, len(tokenizer) // _WORDS))
    words = (tokenizer.decode([i]).strip().removeprefix("##") for i in ids)
    special = [token.content for _, token in sorted(tokenizer.added_tokens_decoder.items())]
    return sample_inputs([word for word in words if word], special, max_length)


def _short(text: str) -> str:
    return repr(text) if len(text) <= _SHOWN else f"{text[:_SHOWN]!r}… ({len(text)} characters)"


def _around(ids: list[int], first: int) -> str:
    """A list of ids, cut to those around the first that differs where it is long."""
    if len(ids) <= _SHOWN:
        return str(ids)
    start = max(0, first - 5)
    return f"{ids[start : start + 10]} (from number {start} of {len(ids)})"
