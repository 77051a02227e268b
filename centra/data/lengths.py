"""How long inputs are, and what truncation cuts off them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from centra.data.tags import tagged_spans
from centra.data.words import mostly_unspaced
from centra.progress import Progress, silent

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from centra.data.inputs import Example, Input
    from centra.tokenization.text_encoder import Row, TextEncoder

__all__ = ["Lengths", "Truncated", "Unit", "cut_entities", "measure", "spans_of"]

Unit = Literal["tokens", "words", "characters"]
"""Of a backbone's tokenizer, special ones included; of what spaces separate; of scripts without spaces."""

_BATCH = 1000
_SAMPLE = 1000
"""So many inputs tell whether the data are written without spaces."""


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """How long the inputs of a split are, before anything is cut off."""

    counts: Mapping[int, int]
    """Inputs by length, the shortest first."""

    def at(self, share: float) -> int:
        """The length that so large a share of the inputs does not exceed."""
        reached = 0
        for length, count in self.counts.items():
            reached += count
            if reached >= share * self.total:
                return length
        return 0

    @property
    def total(self) -> int:
        """How many inputs."""
        return sum(self.counts.values())

    @property
    def mean(self) -> float:
        """Of all inputs."""
        return sum(length * count for length, count in self.counts.items()) / self.total


@dataclass(frozen=True, kw_only=True)
class Truncated:
    """What truncation cuts off a split."""

    places: tuple[str, ...]
    """The rows that lose something, by file and line."""
    entities: Mapping[str, int]
    """How many entities of each type are cut, in part or whole; they can never be found."""
    all_entities: Mapping[str, int]
    """How many there are of those types."""


def measure(
    splits: Mapping[str, Sequence[Example]],
    encoder: TextEncoder | None,
    progress: Progress = silent,
) -> tuple[Unit, dict[str, Lengths], dict[str, Truncated] | None]:
    """Measure the inputs of each split.

    Args:
        splits: by name, their examples; tags in BIO.
        encoder: of the backbone; None counts words or characters, and finds nothing that is cut.
        progress: told of the inputs that are tokenised.

    Returns:
        What is counted; per split with rows the lengths; and what is cut, where that is known.

    Raises:
        FormatError: the tokenizer fails on a text.
    """
    filled = {name: examples for name, examples in splits.items() if examples}
    if encoder is None:
        unit = _unit(filled)
        counts = {
            name: Counter(_count(example.input, unit) for example in examples)
            for name, examples in filled.items()
        }
        return unit, {name: _lengths(found) for name, found in counts.items()}, None
    lengths, truncated = {}, {}
    for name, examples in filled.items():
        found: Counter[int] = Counter()
        places: list[str] = []
        cut: Counter[str] = Counter()
        for done, (example, row) in enumerate(_encoded(examples, encoder), 1):
            if done % _BATCH == 0 or done == len(examples):
                progress(f"tokenised {name}", done, len(examples))
            found[row.given or len(row.input_ids)] += 1
            if row.given:
                places.append(example.where)
                cut.update(cut_entities(example, row))
        lengths[name] = _lengths(found)
        of_type = Counter(span[0] for example in examples for span in spans_of(example))
        truncated[name] = Truncated(
            places=tuple(places),
            entities=dict(cut.most_common()),
            all_entities={kind: of_type[kind] for kind, _ in cut.most_common()},
        )
    return "tokens", lengths, truncated


def cut_entities(example: Example, row: Row) -> list[str]:
    """The types of a tagged example's entities that truncation cuts off, in part or whole."""
    kept = max(stop for _, stop in row.offsets)
    places = example.input.token_spans
    return [name for name, _, end in spans_of(example) if places[end - 1][1] > kept]


def spans_of(example: Example) -> list[tuple[str, int, int]]:
    """The spans of a tagged example, as :func:`centra.data.tags.tagged_spans` gives them."""
    if not isinstance(example.label, tuple) or example.input.tokens is None:
        return []
    return tagged_spans(example.label)


def _encoded(examples: Sequence[Example], encoder: TextEncoder) -> Iterator[tuple[Example, Row]]:
    for start in range(0, len(examples), _BATCH):
        part = examples[start : start + _BATCH]
        yield from zip(part, encoder.encode(e.input for e in part), strict=True)


def _lengths(counts: Mapping[int, int]) -> Lengths:
    return Lengths(counts=dict(sorted(counts.items())))


def _unit(splits: Mapping[str, Sequence[Example]]) -> Unit:
    texts = [e.input.text for examples in splits.values() for e in examples[:_SAMPLE]]
    unspaced = sum(map(mostly_unspaced, texts))
    return "characters" if 2 * unspaced > len(texts) else "words"


def _count(item: Input, unit: Unit) -> int:
    texts = [item.text] if item.text_pair is None else [item.text, item.text_pair]
    if unit == "characters":
        return sum(len("".join(text.split())) for text in texts)
    if item.tokens is not None:
        return len(item.tokens)
    return sum(len(text.split()) for text in texts)
