"""The Open Inference Protocol over HTTP, byte by byte: its JSON, and binary data behind it."""

from __future__ import annotations

import gzip
import json
import struct
import zlib
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.serving.servers import Server

HEADER = "Inference-Header-Content-Length"
TENSOR = {"name": "text", "datatype": "BYTES", "shape": [2], "data": ["wake me", "is there snow"]}
BINARY = b"".join(struct.pack("<I", len(text)) + text for text in (b"wake me", b"is there snow"))
BEHIND = {
    "name": "text",
    "datatype": "BYTES",
    "shape": [2],
    "parameters": {"binary_data_size": len(BINARY)},
}


@pytest.fixture(scope="module")
def http(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url) as client:
        yield client


def infer(http: httpx.Client, body: Any, binary: bytes | None = None, **headers: str) -> Any:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    if binary is not None:
        headers.setdefault(HEADER, str(len(data)))
        data += binary
    return http.post("/v2/models/intent/infer", content=data, headers=headers)


def test_json_is_answered_by_json(http: httpx.Client) -> None:
    response = infer(http, {"id": "a", "inputs": [TENSOR]})
    assert response.headers["content-type"] == "application/json"
    assert "branch;dur=" in response.headers["server-timing"]
    answer = response.json()
    label, score = answer["outputs"]
    assert (answer["model_name"], answer["id"]) == ("intent", "a")
    assert (label["name"], label["datatype"], label["shape"]) == ("label", "BYTES", [2])
    assert (score["name"], score["datatype"], score["shape"]) == ("score", "FP32", [2])
    assert len(label["data"]) == len(score["data"]) == 2


def test_what_is_null_is_not_given(http: httpx.Client) -> None:
    body = {"id": None, "parameters": {"top_k": None, "timeout": None}, "outputs": None}
    answer = infer(http, {**body, "inputs": [TENSOR | {"parameters": None}]}).json()
    assert [output["name"] for output in answer["outputs"]] == ["label", "score"]


def test_binary_and_json_tensors_go_together(http: httpx.Client) -> None:
    body = {"inputs": [BEHIND], "outputs": [
        {"name": "score", "parameters": {"binary_data": True}}, {"name": "label"}
    ]}  # fmt: skip
    response = infer(http, body, BINARY)
    length = int(response.headers[HEADER])
    assert response.headers["content-type"] == "application/octet-stream"
    score, label = json.loads(response.content[:length])["outputs"]
    assert score["parameters"] == {"binary_data_size": 8}
    assert len(response.content) == length + 8
    plain = infer(http, {"inputs": [TENSOR]}).json()["outputs"]
    assert label["data"] == plain[0]["data"]
    assert struct.unpack("<2f", response.content[length:]) == pytest.approx(
        plain[1]["data"], abs=1e-5
    )


def test_one_parameter_makes_all_outputs_binary_but_those_that_say_otherwise(
    http: httpx.Client,
) -> None:
    body = {
        "parameters": {"binary_data_output": True},
        "inputs": [TENSOR],
        "outputs": [{"name": "label"}, {"name": "score", "parameters": {"binary_data": False}}],
    }
    response = infer(http, body)
    outputs = json.loads(response.content[: int(response.headers[HEADER])])["outputs"]
    assert ["data" in output for output in outputs] == [False, True]


@pytest.mark.parametrize(
    ("encoding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress)]
)
def test_a_compressed_body_is_read(http: httpx.Client, encoding: str, compress: Any) -> None:
    body = json.dumps({"inputs": [BEHIND]}).encode()
    headers = {HEADER: str(len(body)), "Content-Encoding": encoding}
    response = http.post(
        "/v2/models/intent/infer", content=compress(body + BINARY), headers=headers
    )
    assert response.status_code == 200
    bomb = compress(b" " * 2**24)
    assert infer(http, bomb, **{"Content-Encoding": encoding}).status_code == 413
    whole = compress(body)
    for broken in (body, whole[:-5], whole + b"x"):
        response = infer(http, broken, **{"Content-Encoding": encoding})
        assert (response.status_code, [*response.json()]) == (400, ["error"])


@pytest.mark.parametrize(
    ("body", "binary", "words"),
    [
        (b"", None, "not JSON"),
        (b"[1]", None, "expected a JSON object"),
        ({"inputs": [TENSOR], "outputs": 3}, None, "outputs: input should be a valid list"),
        ({"inputs": [TENSOR | {"shape": ["2"]}]}, None, "inputs[0].shape[0]"),
        ({"inputs": [TENSOR | {"shape": [True]}]}, None, "inputs[0].shape[0]"),
        ({"inputs": [TENSOR, TENSOR]}, None, "input text is given twice"),
        ({"inputs": []}, None, "input text is missing"),
        ({"inputs": [TENSOR] * 100}, None, "inputs"),
        ({"inputs": [TENSOR | {"data": ["a", 1]}]}, None, "element 1 is 1; expected a text"),
        ({"inputs": [TENSOR | {"data": None}]}, None, "neither data nor binary_data_size"),
        ({"inputs": [BEHIND | {"data": ["a", "b"]}]}, BINARY, "both data and binary_data_size"),
        ({"inputs": [BEHIND]}, BINARY[:-1], "behind the JSON"),
        ({"inputs": [BEHIND]}, BINARY + b"x", "add up to"),
        ({"inputs": [BEHIND]}, None, "behind the JSON"),
        ({"inputs": [TENSOR]}, b"x", "add up to 0"),
        (
            {"inputs": [BEHIND | {"parameters": {"binary_data_size": -1}}]},
            BINARY,
            "binary_data_size is -1",
        ),
        (
            {"inputs": [BEHIND | {"parameters": {"binary_data_size": 10**30}}]},
            BINARY,
            "binary_data_size is",
        ),
        (
            {"inputs": [TENSOR | {"parameters": {"shared_memory_region": "x"}}]},
            None,
            "no extension for shared_memory_region",
        ),
        (
            {"inputs": [TENSOR], "outputs": [{"name": "label", "parameters": {"binary_data": 1}}]},
            None,
            "expected true or false",
        ),
    ],
)
def test_a_body_that_is_wrong_is_refused_and_says_where(
    http: httpx.Client, body: Any, binary: bytes | None, words: str
) -> None:
    response = infer(http, body, binary)
    assert (response.status_code, [*response.json()]) == (400, ["error"])
    assert words in response.json()["error"]


@pytest.mark.parametrize("header", ["-1", "x", "1e3", "99999", "9" * 40])
def test_a_header_that_is_no_length_is_refused(http: httpx.Client, header: str) -> None:
    response = infer(http, {"inputs": [BEHIND]}, BINARY, **{HEADER: header})
    assert (response.status_code, [*response.json()]) == (400, ["error"])


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/nothing", 404),
        ("GET", "/v2/models/intent/infer", 405),
        ("GET", "/v2/models/nothing", 404),
        ("GET", "/v2/models/intent/versions/9.9", 404),
        ("POST", "/v2/repository/models/intent/load", 404),
    ],
)
def test_every_refusal_below_v2_is_in_the_words_of_the_protocol(
    http: httpx.Client, method: str, path: str, status: int
) -> None:
    response = http.request(method, path)
    assert (response.status_code, [*response.json()]) == (status, ["error"])


def test_the_module_is_a_version_too(http: httpx.Client) -> None:
    metadata = http.get("/v2/models/intent").json()
    assert metadata["parameters"]["labels"] == ["alarm", "music", "weather"]
    module = metadata["parameters"]["module"]
    assert http.get(f"/v2/models/intent/versions/{module}").json() == metadata


@given(
    body=st.builds(
        lambda names, shape, size, data: {
            "inputs": [
                {"name": name, "datatype": "BYTES", "shape": shape}
                | ({"data": data} if size is None else {"parameters": {"binary_data_size": size}})
                for name in names
            ]
        },
        st.lists(st.sampled_from(["text", "text_pair", ""]), max_size=2),
        st.lists(st.integers(-1, 2**64) | st.just(1) | st.none(), max_size=3),
        st.integers(-1, 40) | st.none() | st.text(max_size=2),
        st.recursive(st.text(max_size=3) | st.integers() | st.none(), st.lists),
    ),
    binary=st.binary(max_size=40),
    header=st.integers(-1, 200) | st.none() | st.text("0123456789x-", max_size=3),
)
@settings(max_examples=100)
def test_no_body_is_more_than_refused(
    http: httpx.Client, body: Any, binary: bytes, header: int | str | None
) -> None:
    data = json.dumps(body).encode()
    length = len(data) if header is None else header
    response = infer(http, data + binary, **{HEADER: str(length)})
    assert response.status_code in (200, 400), response.text
    assert "error" in response.json() or response.status_code == 200
