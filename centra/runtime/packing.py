"""Ragged rows: a batch's tokens one after the other, without padding.

What is computed token by token (every linear layer, norm and activation) sees the real tokens of a
batch and nothing else. Attention looks at whole inputs. For it, inputs are grouped by length, and
each is padded to a length that depends on its own alone, from a fixed list: sums over a row come
out differently in the last bit at another length of the row, so with any other rule an answer
would depend on its neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from centra.families.positions import BLOCK

if TYPE_CHECKING:
    from collections.abc import Iterator

    from centra.families.heads import Pooling
    from centra.tokenization.text_encoder import Encoded

__all__ = ["Blocks", "Bucket", "Packed", "Part", "padded_length"]

_LENGTHS = np.array([16, 32, 48, 64, 96, 128])
_STEP = 128
"""Above the list, lengths are padded to multiples of this."""
_SQUARES = 2**18
"""Pairs of tokens, per head, that attention looks at in one go. Inputs that have more are in buckets of
their own, and looked at block by block, which bounds its memory at any length."""
_ROWS = 1024
"""How many tokens of such an input look at all of it together."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Blocks:
    """Tokens of a long input in blocks, and those that each block looks at."""

    gather: np.ndarray
    """``(n, BLOCK)``: the packed tokens; padding repeats the input's last."""
    seen: np.ndarray
    """``(n, BLOCK + 2 * window)``: those that are looked at; padding repeats the first or the last."""
    mask: np.ndarray
    """Of these, int32: 1 for tokens, 0 for padding."""
    scatter: np.ndarray
    """``(tokens,)``: where in ``n × BLOCK`` the packed tokens lie."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Bucket:
    """Some inputs of a packed batch that are padded to the same length for attention."""

    inputs: np.ndarray
    """``(n,)``: which inputs, by their place in the packed order."""
    gather: np.ndarray
    """``(n, length)``: the packed tokens; padding repeats the input's own first token."""
    mask: np.ndarray
    """``(n, length)`` of int32: 1 for tokens, 0 for padding."""
    scatter: np.ndarray
    """``(tokens,)``: where in ``n × length`` the packed tokens of these inputs lie."""
    _blocks: dict[int, list[Blocks]] = field(default_factory=dict)

    @property
    def long(self) -> bool:
        """Whether it holds one input, with which no other of its length is looked at in one go."""
        return int(self.mask.shape[1]) ** 2 > _SQUARES // 2

    @property
    def rows(self) -> slice:
        """Where the packed tokens of a long input lie."""
        start = int(self.gather[0, 0])
        return slice(start, start + len(self.scatter))

    @property
    def pieces(self) -> list[slice]:
        """The same in pieces that look at all of the input together."""
        rows = self.rows
        return [
            slice(start, min(start + _ROWS, rows.stop))
            for start in range(rows.start, rows.stop, _ROWS)
        ]

    def near(self, window: int) -> list[Blocks]:
        """A long input's tokens with those in a window; so many at a time as are looked at in one go."""
        if window not in self._blocks:
            most = max(1, _SQUARES // (BLOCK * (BLOCK + 2 * window))) * BLOCK
            tokens = len(self.scatter)
            self._blocks[window] = [
                _near(self.rows, start, min(start + most, tokens), window)
                for start in range(0, tokens, most)
            ]
        return self._blocks[window]

    @cached_property
    def bias(self) -> np.ndarray:
        """``(n, 1, length)``: what to add to the scores of a first token's attention."""
        bias = np.where(self.mask, np.float32(0), np.finfo(np.float32).min)
        return bias[:, None, :]


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """Some inputs that follow each other in packed order."""

    rows: slice
    """Their tokens."""
    buckets: tuple[Bucket, ...]
    """Places are counted within the part."""

    @cached_property
    def whole(self) -> bool:
        """Whether there is one bucket and no padding in it, so that nothing must be moved."""
        return len(self.buckets) == 1 and bool(self.buckets[0].mask.all())


@dataclass(frozen=True, kw_only=True, eq=False)
class Packed:
    """A batch without padding, its inputs in the order of their padded lengths."""

    input_ids: np.ndarray
    """``(tokens,)``; so are the next two."""
    token_type_ids: np.ndarray
    columns: np.ndarray
    """Each token's place in its padded row."""
    rows: np.ndarray
    """``(tokens,)``: each token's input, by its place in the batch as given."""
    order: np.ndarray
    """``(batch,)``: the inputs in packed order, by their places in the batch as given."""
    firsts: np.ndarray
    """``(batch,)``: the first token of each input, in packed order."""
    lengths: np.ndarray
    """``(batch,)``: how many tokens each input has, in packed order."""
    padded: np.ndarray
    """``(batch,)``: to how many tokens each is padded for attention, in packed order."""
    seq: int
    """The length of the padded batch."""
    _parts: dict[int, list[Part]] = field(default_factory=dict)

    @classmethod
    def of(cls, batch: Encoded) -> Packed:
        """Pack a padded batch.

        Args:
            batch: at least one input of at least one token; padding is where the attention mask
                is 0. The first token always counts, as sentence heads read it.
        """
        mask = batch.attention_mask.astype(bool)
        mask[:, 0] = True
        lengths = mask.sum(axis=1)
        padded = np.array([padded_length(n) for n in lengths.tolist()])
        order = np.argsort(padded, kind="stable")
        rows, columns = np.nonzero(mask[order])
        rows = order[rows]
        lengths = lengths[order]
        return cls(
            input_ids=batch.input_ids[rows, columns],
            token_type_ids=batch.token_type_ids[rows, columns],
            columns=columns,
            rows=rows,
            order=order,
            firsts=lengths.cumsum() - lengths,
            lengths=lengths,
            padded=padded[order],
            seq=mask.shape[1],
        )

    def only(self, inputs: np.ndarray) -> tuple[Packed, np.ndarray]:
        """Some of the inputs, in the same order.

        Args:
            inputs: by their places in the batch as given.

        Returns:
            They, and which tokens are theirs.
        """
        chosen = np.isin(self.order, inputs)
        tokens = np.nonzero(np.repeat(chosen, self.lengths))[0]
        own = self.order[chosen], self.lengths[chosen], self.padded[chosen]
        return self._with(tokens, *own), tokens

    def beginnings(self, tokens: int) -> tuple[Packed, np.ndarray]:
        """The first tokens of each input, as many as there are up to some number; likewise."""
        lengths = np.minimum(self.lengths, tokens)
        found = np.nonzero(self.places < tokens)[0]
        padded = np.minimum(self.padded, padded_length(tokens))
        return self._with(found, self.order, lengths, padded), found

    def _with(
        self, tokens: np.ndarray, order: np.ndarray, lengths: np.ndarray, padded: np.ndarray
    ) -> Packed:
        """Some of the tokens, of inputs of such lengths."""
        return Packed(
            input_ids=self.input_ids[tokens],
            token_type_ids=self.token_type_ids[tokens],
            columns=self.columns[tokens],
            rows=self.rows[tokens],
            order=order,
            firsts=lengths.cumsum() - lengths,
            lengths=lengths,
            padded=padded,
            seq=self.seq,
        )

    @cached_property
    def places(self) -> np.ndarray:
        """``(tokens,)``: each token's place within its own input."""
        places: np.ndarray = np.arange(len(self.rows)) - np.repeat(self.firsts, self.lengths)
        return places

    def pooled(self, states: np.ndarray, pooling: Pooling) -> np.ndarray:
        """One row for each input ``(batch, …)`` in packed order, of one for each token.

        Each input's tokens are added up one after the other, whatever else is in the batch.
        """
        if pooling == "first":
            rows: np.ndarray = states[self.firsts]
            return rows
        bounds = zip(self.firsts.tolist(), self.lengths.tolist(), strict=True)
        inputs = (states[start : start + length] for start, length in bounds)
        if pooling == "max":
            return np.stack([tokens.max(axis=0) for tokens in inputs])
        sums = np.stack([tokens.sum(axis=0) for tokens in inputs])
        means: np.ndarray = sums / self.lengths[:, None].astype(sums.dtype)
        return means

    @property
    def all(self) -> Part:
        """The whole batch as one part."""
        return self.parts(1)[0]

    def parts(self, count: int) -> list[Part]:
        """Cut the batch into parts of about as many tokens each.

        Args:
            count: how many; there are fewer where inputs are too few or too long.
        """
        if count not in self._parts:
            ends = self.firsts + self.lengths
            wanted = ends[-1] * np.arange(1, count + 1) / count
            cuts = [0, *np.unique(np.searchsorted(ends, wanted) + 1).tolist()]
            self._parts[count] = [self._part(a, b) for a, b in pairwise(cuts)]
        return self._parts[count]

    def _part(self, first: int, end: int) -> Part:
        start, lengths = int(self.firsts[first]), self.lengths[first:end]
        buckets = _buckets(self.padded[first:end], self.firsts[first:end] - start, lengths)
        return Part(rows=slice(start, start + int(lengths.sum())), buckets=tuple(buckets))

    def unpack_inputs(self, values: np.ndarray) -> np.ndarray:
        """From one row per input in packed order to the order of the batch as given."""
        found = np.empty_like(values)
        found[self._ranks] = values
        return found

    def unpack_tokens(self, values: np.ndarray) -> np.ndarray:
        """From one row per token to ``(batch, seq, …)``, with zeros for padding; likewise."""
        shape = len(self.order), self.seq, *values.shape[1:]
        found = np.zeros(shape, dtype=values.dtype)
        found[np.repeat(self._ranks, self.lengths), self.columns] = values
        return found

    @cached_property
    def _ranks(self) -> np.ndarray:
        """``(batch,)``: each input's place among these, in the order of the batch as given."""
        return np.searchsorted(np.sort(self.order), self.order)


def padded_length(length: int) -> int:
    """To how many tokens an input of so many is padded for attention."""
    if length > _LENGTHS[-1]:
        return -(-length // _STEP) * _STEP
    return int(_LENGTHS[np.searchsorted(_LENGTHS, length)])


def _buckets(padded: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> Iterator[Bucket]:
    for length in np.unique(padded).tolist():
        inputs = np.nonzero(padded == length)[0]
        most = max(1, _SQUARES // length**2)
        for i in range(0, len(inputs), most):
            part = inputs[i : i + most]
            places = np.arange(length)
            mask = places < lengths[part, None]
            yield Bucket(
                inputs=part,
                gather=starts[part, None] + np.where(mask, places, 0),
                mask=mask.astype(np.int32),
                scatter=np.nonzero(mask.reshape(-1))[0],
            )


def _near(rows: slice, first: int, end: int, window: int) -> Blocks:
    """Blocks of a long input's tokens from a first one on, counted within the input."""
    last = rows.stop - rows.start - 1
    starts = np.arange(first, end, BLOCK)[:, None]
    tokens, seen = starts + np.arange(BLOCK), starts + np.arange(-window, BLOCK + window)
    return Blocks(
        gather=rows.start + tokens.clip(max=last),
        seen=rows.start + seen.clip(0, last),
        mask=((seen >= 0) & (seen <= last)).astype(np.int32),
        scatter=np.arange(end - first),
    )
