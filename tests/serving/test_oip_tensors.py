"""Tensors of the Open Inference Protocol against its public client, and against hostile bytes."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np
import pytest
from google.protobuf.descriptor_pb2 import DescriptorProto
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import model_config_pb2, service_pb2
from tritonclient.utils import deserialize_bytes_tensor, serialize_byte_tensor

from centra.errors import DataError
from centra.serving.errors import TooLargeError
from centra.serving.oip.messages import message
from centra.serving.oip.outputs import outputs_of
from centra.serving.oip.tensors import InputTensor, OutputTensor, split_body, texts_of
from tests.toy_kind import Rating

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor

TEXTS = st.lists(st.text(st.characters(codec="utf-8")), min_size=1, max_size=20)


def tensor(data: object, shape: list[int], datatype: str = "BYTES") -> InputTensor:
    return InputTensor(name="text", datatype=datatype, shape=shape, data=data)


def raw(*texts: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)


@given(TEXTS)
def test_texts_are_read_as_the_public_client_writes_them(texts: list[str]) -> None:
    data = serialize_byte_tensor(np.array(texts, dtype=object)).item()
    assert texts_of(tensor(data, [len(texts)]), 100) == texts
    assert texts_of(tensor(data, [len(texts), 1]), 100) == texts
    assert texts_of(tensor(texts, [len(texts)]), 100) == texts
    assert texts_of(tensor([[text] for text in texts], [len(texts), 1]), 100) == texts


@given(TEXTS)
def test_the_public_client_reads_the_texts_that_are_written(texts: list[str]) -> None:
    output = OutputTensor(name="label", datatype="BYTES", shape=(len(texts),), values=texts)
    assert [text.decode() for text in deserialize_bytes_tensor(output.to_bytes())] == texts


@given(st.lists(st.floats(width=32), max_size=20))
def test_the_public_client_reads_the_numbers_that_are_written(values: list[float]) -> None:
    output = OutputTensor(name="score", datatype="FP32", shape=(len(values),), values=values)
    read = np.frombuffer(output.to_bytes(), dtype=np.float32)
    np.testing.assert_array_equal(read, np.array(values, dtype=np.float32))


@given(st.binary(max_size=200), st.lists(st.integers(-1, 2**63), max_size=4))
def test_no_bytes_and_no_shape_do_more_than_be_refused(data: bytes, shape: list[int]) -> None:
    try:
        texts = texts_of(tensor(data, shape), 100)
    except (DataError, TooLargeError):
        return
    assert len(texts) == shape[0]
    assert raw(*(text.encode() for text in texts)) == data


@pytest.mark.parametrize(
    ("refused", "words"),
    [
        (tensor(b"", [1], "FP32"), "datatype is 'FP32'; expected BYTES"),
        (tensor(raw(b"a"), []), r"shape is \[\]; expected \[n\]"),
        (tensor(raw(b"a"), [1, 2]), r"shape is \[1, 2\]"),
        (tensor(raw(b"a"), [1, 1, 1]), r"shape is \[1, 1, 1\]"),
        (tensor(b"", [0]), "with n at least 1"),
        (tensor(raw(b"a"), [99]), "5 bytes of data are too few for 99"),
        (tensor(raw(b"abcdef"), [2]), "its data end before element 1 of 2"),
        (tensor(struct.pack("<I", 9) + b"ab", [1]), "says that it has 9 bytes; 2 are left"),
        (tensor(raw(b"a") + b"x", [1]), "1 bytes of data are left behind"),
        (tensor(raw(b"\xff"), [1]), r"element 0 is not valid UTF-8 \(byte 0\)"),
        (tensor(["a"], [2]), "has 1 elements; its shape says 2"),
        (tensor(["a", 7], [2]), "element 1 is 7; expected a text"),
        (tensor([["a"], ["b"]], [2]), r"element 0 is \['a'\]; expected a text"),
    ],
)
def test_a_tensor_that_is_none_is_refused_and_named(refused: InputTensor, words: str) -> None:
    with pytest.raises(DataError, match=f"input 'text'.*{words}"):
        texts_of(refused, 100)


def test_more_elements_than_are_taken_are_refused_before_they_are_read() -> None:
    with pytest.raises(TooLargeError, match="has 4611686018427387904 elements; at most 100"):
        texts_of(tensor(b"", [2**62]), 100)


def test_a_body_is_cut_where_its_header_says() -> None:
    assert split_body(b'{"a": 1}xyz', "8") == (b'{"a": 1}', b"xyz")
    assert split_body(b"{}", None) == (b"{}", b"")


@pytest.mark.parametrize("header", ["", "-1", "1.5", "nine", "12", "9" * 30, "²"])
def test_a_header_that_is_no_length_within_the_body_is_refused(header: str) -> None:
    with pytest.raises(DataError, match="Inference-Header-Content-Length"):
        split_body(b"{}", header)


def test_a_kind_of_its_own_has_outputs_too() -> None:
    label, value = outputs_of(Rating()).values()
    answers = [{"label": "good", "value": 1.5}, {"label": None, "value": -1}]
    assert label.tensor(answers).values == ["good", ""]
    assert (value.name, value.datatype, value.shape) == ("value", "FP32", [-1])
    assert value.tensor(answers).values == [1.5, -1]


def messages_of(descriptor: Descriptor) -> dict[str, DescriptorProto]:
    """A message and those that are declared in it, by their names alone."""
    proto = DescriptorProto()
    descriptor.CopyToProto(proto)
    found = {descriptor.name: proto}
    for inner in descriptor.nested_types:
        found |= messages_of(inner)
    return found


def test_every_field_of_every_message_is_that_of_the_public_protocol() -> None:
    public: dict[str, DescriptorProto] = {}
    for file in (service_pb2.DESCRIPTOR, model_config_pb2.DESCRIPTOR):
        for descriptor in file.message_types_by_name.values():
            public |= messages_of(descriptor)
    ours = message("ModelInferRequest").DESCRIPTOR.file.message_types_by_name
    checked = [name for name in ours if not name.startswith("HealthCheck")]
    assert len(checked) > 20
    for name in checked:
        theirs = {field.name: field for field in public[name].field}
        for field in messages_of(ours[name])[name].field:
            of_public = theirs[field.name]
            assert (field.number, field.type, field.label) == (
                of_public.number,
                of_public.type,
                of_public.label,
            ), f"{name}.{field.name}"
            assert field.type_name.split(".")[-1] == of_public.type_name.split(".")[-1]


def test_the_numbers_of_data_types_are_those_of_the_public_protocol() -> None:
    ours = message("ModelInput").DESCRIPTOR.fields_by_name["data_type"].enum_type
    for value in ours.values:
        assert value.number == model_config_pb2.DataType.Value(value.name)
