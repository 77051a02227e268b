"""Batches without padding: nothing is lost, and where a token lies depends on its own input alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from centra.runtime.packing import Packed, padded_length
from centra.tokenization.text_encoder import Encoded

lengths = st.lists(st.integers(1, 300), min_size=1, max_size=12)


def batch(*lengths: int) -> Encoded:
    """Rows of so many tokens whose ids tell them apart."""
    shape = (len(lengths), max(lengths))
    mask = (np.arange(shape[1]) < np.array(lengths)[:, None]).astype(np.int64)
    ids = np.arange(1, mask.size + 1).reshape(shape) * mask
    return Encoded(input_ids=ids, attention_mask=mask, token_type_ids=ids % 2)


@given(lengths)
def test_unpacking_gives_what_was_packed(lengths: list[int]) -> None:
    given = batch(*lengths)
    packed = Packed.of(given)

    assert len(packed.input_ids) == sum(lengths)
    assert np.array_equal(packed.unpack_tokens(packed.input_ids), given.input_ids)
    assert np.array_equal(packed.unpack_tokens(packed.token_type_ids), given.token_type_ids)
    assert np.array_equal(
        packed.unpack_inputs(packed.input_ids[packed.firsts]), given.input_ids[:, 0]
    )
    assert np.array_equal(packed.unpack_inputs(packed.order), np.arange(len(lengths)))


@given(lengths, st.data())
def test_some_inputs_are_packed_as_they_would_be_alone(lengths: list[int], data: Any) -> None:
    given = batch(*lengths)
    chosen = np.array(
        sorted(data.draw(st.sets(st.sampled_from(range(len(lengths))), min_size=1))), np.int64
    )

    packed, tokens = Packed.of(given).only(chosen)

    alone = Packed.of(Encoded(**{name: array[chosen] for name, array in vars(given).items()}))
    assert np.array_equal(packed.order, chosen[alone.order])
    for name in ("input_ids", "token_type_ids", "columns", "firsts", "lengths", "padded", "places"):
        assert np.array_equal(getattr(packed, name), getattr(alone, name)), name
    assert np.array_equal(Packed.of(given).input_ids[tokens], packed.input_ids)
    assert np.array_equal(packed.unpack_tokens(packed.input_ids), given.input_ids[chosen])
    assert np.array_equal(packed.unpack_inputs(packed.order), chosen)
    again, _ = packed.only(chosen[:1])
    assert np.array_equal(again.unpack_tokens(again.input_ids), given.input_ids[chosen[:1]])


@given(lengths)
def test_buckets_hold_every_token_once_and_no_input_sees_another(lengths: list[int]) -> None:
    packed = Packed.of(batch(*lengths))

    assert np.concatenate([b.inputs for b in packed.all.buckets]).tolist() == [*range(len(lengths))]
    seen = []
    for bucket in packed.all.buckets:
        for place, row, mask in zip(bucket.inputs, bucket.gather, bucket.mask, strict=True):
            own = packed.order[place]
            assert len(row) == padded_length(lengths[own])
            assert mask.sum() == lengths[own]
            assert (packed.rows[row] == own).all()  # The padding too is the input's own.
        seen.append(bucket.gather.reshape(-1)[bucket.scatter])
    assert np.concatenate(seen).tolist() == [*range(sum(lengths))]


@given(lengths, st.integers(1, 20))
def test_parts_are_the_batch_cut_between_inputs(lengths: list[int], count: int) -> None:
    packed = Packed.of(batch(*lengths))
    parts = packed.parts(count)

    assert 1 <= len(parts) <= min(count, len(lengths))
    rows = np.arange(sum(lengths))
    assert np.concatenate([rows[part.rows] for part in parts]).tolist() == rows.tolist()
    found = []
    for part in parts:
        for bucket in part.buckets:
            for row, mask in zip(bucket.gather, bucket.mask, strict=True):
                own = rows[part.rows][row]
                found.append(
                    (packed.rows[own[0]], len(row), packed.columns[own[mask == 1]].tolist())
                )
                assert (packed.rows[own] == found[-1][0]).all()
    assert sorted(found) == [(i, padded_length(n), [*range(n)]) for i, n in enumerate(lengths)]


@given(st.integers(2, 40), st.integers(2, 8))
def test_parts_of_equal_inputs_are_about_equal(inputs: int, count: int) -> None:
    sizes = [
        part.rows.stop - part.rows.start for part in Packed.of(batch(*[7] * inputs)).parts(count)
    ]

    assert len(sizes) == min(inputs, count)
    assert max(sizes) - min(sizes) <= 7


@given(lengths)
def test_attention_looks_at_a_bounded_number_of_pairs(lengths: list[int]) -> None:
    for bucket in Packed.of(batch(*lengths)).all.buckets:
        assert len(bucket.inputs) == 1 or len(bucket.inputs) * bucket.mask.shape[1] ** 2 <= 2**18


@pytest.mark.parametrize(
    ("length", "padded"),
    [
        (1, 16),
        (16, 16),
        (17, 32),
        (33, 48),
        (65, 96),
        (97, 128),
        (128, 128),
        (129, 256),
        (512, 512),
    ],
)
def test_length_for_attention(length: int, padded: int) -> None:
    assert padded_length(length) == padded


def test_whole_is_a_batch_in_which_nothing_must_be_moved() -> None:
    assert Packed.of(batch(16, 16)).all.whole
    assert not Packed.of(batch(16, 15)).all.whole
    assert not Packed.of(batch(16, 32)).all.whole


def test_first_token_s_scores_are_lowered_where_there_is_padding() -> None:
    (bucket,) = Packed.of(batch(3, 1)).all.buckets

    assert bucket.bias.shape == (2, 1, 16)
    assert (bucket.bias[0, 0] == 0).tolist() == [True] * 3 + [False] * 13
    assert bucket.bias[1, 0, 1] < -1e38


def test_padding_may_lie_anywhere_but_first() -> None:
    given = batch(4, 4)
    given.attention_mask[0, 1] = 0
    given.attention_mask[1, 0] = 0

    packed = Packed.of(given)

    assert packed.columns[packed.rows == 0].tolist() == [0, 2, 3]
    assert packed.columns[packed.rows == 1].tolist() == [0, 1, 2, 3]
