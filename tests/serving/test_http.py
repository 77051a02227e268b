"""Calls over HTTP: what is answered, and what is refused."""

from __future__ import annotations

import gzip
import json
import re
from typing import TYPE_CHECKING, Any

import pytest

import centra
from tests.serving.servers import alike

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

    from tests.serving.servers import ServedStore, Server

TASKS = ["intent", "same", "slots", "stars", "topics"]
LABELS = ["alarm", "music", "weather"]
TEXT = "wake me at seven"


@pytest.fixture(scope="module")
def offline(served_store: ServedStore) -> Iterator[centra.runtime.Release]:
    """The same release in this process."""
    with centra.load_release(served_store.source, engine="onnx", threads=1) as release:
        yield release


def predict(server: Server, **body: Any) -> Any:
    response = server.client.post("/v1/predict", json=body)
    assert response.status_code == 200, response.text
    return response.json()


def problem(response: httpx.Response, status: int) -> Any:
    """The problem document of a refused call."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    found = response.json()
    assert found["status"] == status
    assert found["request_id"] == response.headers["x-request-id"]
    return found


def check(answers: dict[str, Any], expected: dict[str, Any], manifest: Any) -> None:
    """Compare an input's answers with those of predict."""
    assert answers.keys() == expected.keys()
    for task, answer in answers.items():
        named = {"version": "2.1", "module": manifest.tasks[task].digest[:12]}
        assert alike(answer, named | expected[task]), task


def test_answers_are_those_of_predict(server: Server, offline: centra.runtime.Release) -> None:
    pair = {"text": "is it cold", "text_pair": "yes it is"}
    words = {"tokens": ["fly", "to", "new york"]}
    found = predict(
        server, inputs=[TEXT, {"id": ["any"], **pair}, {"id": 5, **words}, [*pair.values()]]
    )
    assert found.keys() == {"release", "answers"}
    assert found["release"] == {"release": 7, "digest": offline.digest}
    assert [answer["id"] for answer in found["answers"]] == [None, ["any"], 5, None]
    for answer, given in zip(found["answers"], [TEXT, pair, words, pair], strict=True):
        assert (answer["truncated"], answer["errors"]) == (None, {})
        check(answer["tasks"], offline.predict(given), offline.manifest)


def test_lines_hold_the_same_answers(server: Server, offline: centra.runtime.Release) -> None:
    body = {
        "inputs": [{"id": "a", "text": TEXT}, "", {"id": "c", "text": "snow", "tasks": ["stars"]}]
    }
    headers = {"Accept": "application/x-ndjson"}
    response = server.client.post("/v1/predict", json={**body, "timing": True}, headers=headers)
    assert response.headers["content-type"] == "application/x-ndjson"
    first, *lines, last = map(json.loads, response.text.splitlines())
    assert first == {"release": {"release": 7, "digest": offline.digest}}
    assert last["end"] is True
    assert last["timing"].keys() == {"tokenise", "queue", "trunk", "branch", "serialise"}
    (refused,) = (line for line in lines if "error" in line)
    assert refused == {"input": 1, "id": None, "error": "inputs[1]: the text is empty"}
    answers: dict[int, dict[str, Any]] = {0: {}, 2: {}}
    for line in lines:
        if "answer" in line:
            assert line["id"] == {0: "a", 2: "c"}[line["input"]]
            answers[line["input"]][line["task"]] = line["answer"]
    check(answers[0], offline.predict(TEXT), offline.manifest)
    check(answers[2], offline.predict("snow", "stars"), offline.manifest)


def test_inputs_ask_for_tasks_of_their_own(server: Server) -> None:
    own = {"text": "snow", "tasks": ["intent", "stars"]}
    found = predict(server, inputs=[own, "snow"], tasks=["topics"])
    assert [[*answer["tasks"]] for answer in found["answers"]] == [["intent", "stars"], ["topics"]]


def test_best_labels_and_logits_come_on_request(
    server: Server, offline: centra.runtime.Release
) -> None:
    (answer,) = predict(server, inputs=[TEXT], top_k=2, logits=True)["answers"]
    logits = offline.logits(TEXT)
    for task, found in answer["tasks"].items():
        assert alike(found["logits"], logits[task][0].tolist()), task
    top = answer["tasks"]["intent"]["top"]
    assert top[0]["label"] == answer["tasks"]["intent"]["label"]
    assert len(top) == 2
    assert top[0]["score"] >= top[1]["score"]


def test_a_cut_input_says_so(server: Server) -> None:
    long, short = predict(server, inputs=["snow " * 300, "snow"], tasks=["intent"])["answers"]
    assert short["truncated"] is None
    cut = long["truncated"]
    assert cut["given"] > cut["kept"] > 10
    assert long["tasks"]["intent"]["truncated"] == {"tokens": cut["given"], "kept": cut["kept"]}


def test_the_time_is_split(server: Server) -> None:
    response = server.client.post("/v1/predict", json={"inputs": [TEXT], "timing": True})
    parts = response.json()["timing"]
    header = dict(re.findall(r"(\w+);dur=([\d.]+)", response.headers["server-timing"]))
    assert [*header] == [*parts] == ["tokenise", "queue", "trunk", "branch", "serialise"]
    assert {part: float(milliseconds) for part, milliseconds in header.items()} == parts


@pytest.mark.parametrize(
    ("item", "says"),
    [
        ("", "inputs[0]: the text is empty"),
        ({"txet": "snow"}, "inputs[0]: there is no field 'txet'"),
        ({"id": 3}, "inputs[0]: expected a text"),
        (7, "inputs[0]: expected a text"),
        ({"text": "snow", "tasks": ["nope"]}, "no task 'nope'"),
        ({"text": "snow", "tasks": ["same"]}, "same takes a pair"),
        ({"text": "snow", "tasks": []}, "inputs[0]: 'tasks' must be"),
        ({"text": "snow", "tasks": [1]}, "inputs[0]: 'tasks' must be"),
        ({"tokens": ["a", ""]}, "inputs[0]: 'tokens' must be"),
        ("x" * 100_001, "at most 100000"),
    ],
)
def test_a_malformed_input_fails_alone(server: Server, item: Any, says: str) -> None:
    refused, answered = predict(server, inputs=[item, "snow"])["answers"]
    assert refused.keys() == {"id", "error"}
    assert says in refused["error"]
    assert [*answered["tasks"]] == ["intent", "slots", "stars", "topics"]


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        (b"", "not-json", None),
        (b"\xff", "not-json", None),
        (b'{"inputs": [NaN]}', "not-json", None),
        (b'{"inputs": ["\\ud800"]}', "not-json", None),
        (b'{"inputs": ["a"], "inputs": ["b"]}', "not-json", None),
        (b'{"inputs": [{"text": "say \\":\\"", "text": "b"}]}', "not-json", None),
        (b"[" * 100_000, "not-json", None),
        (b"[]", "invalid-body", None),
        (b"{}", "invalid-body", "inputs"),
        (b'{"inputs": "a"}', "invalid-body", "inputs"),
        (b'{"inputs": ["a"], "top_k": 0}', "invalid-body", "top_k"),
        (b'{"inputs": ["a"], "top_k": true}', "invalid-body", "top_k"),
        (b'{"inputs": ["a"], "timeout_ms": "5"}', "invalid-body", "timeout_ms"),
        (b'{"inputs": ["a"], "task": "intent"}', "invalid-body", "task"),
        (b'{"inputs": ["a"], "tasks": ["intent", "nope"]}', "no-such-task", "tasks[1]"),
        (b'{"inputs": ["a"], "tasks": []}', "invalid-body", "tasks"),
    ],
)  # fmt: skip
def test_a_body_that_is_wrong_as_a_whole_is_refused(
    server: Server, body: bytes, code: str, field: str | None
) -> None:
    found = problem(server.client.post("/v1/predict", content=body), 422)
    assert (found["code"], found.get("field")) == (code, field)


def test_a_colon_behind_a_quote_in_a_text_is_no_second_key(server: Server) -> None:
    (answer,) = predict(server, inputs=['he said "seven": at "eight" :'], tasks=["intent"])[
        "answers"
    ]
    assert answer["tasks"]


def test_no_inputs_are_no_answers(server: Server) -> None:
    assert predict(server, inputs=[])["answers"] == []


def test_too_much_is_refused_by_field(server: Server) -> None:
    found = problem(server.client.post("/v1/predict", json={"inputs": ["a"] * 1025}), 413)
    assert (found["code"], found["field"]) == ("too-large", "inputs")
    found = problem(server.client.post("/v1/predict", content=b"x" * (8 * 2**20 + 1)), 413)
    assert (found["code"], found["field"]) == ("too-large", "body")


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b'{"inputs": [' + b"[]," * 200_000 + b"[]]}", 413, "more than 200,000 lists"),
        (b"{" + b",".join(b'"k%d": 1' % i for i in range(200_001)) + b"}", 413, "keys"),
        (b"{" + b",".join(b'"k%d": 1' % i for i in range(9)) + b"}", 422, "k0: there is no such"),
        (b'{"inputs": [' + b"[" * 70 + b"]" * 70 + b"]}", 422, "nested too deep"),
        (b'{"inputs": [{"text": "a", "id": 36893488147419103233}]}', 200, "write it as a text"),
        (b'{"inputs": ["a"], "top_k": 36893488147419103233}', 422, "top_k: input should be"),
        (b'{"inputs": [{"text": "36893488147419103233", "id": 9223372036854775807}]}', 200, "5807"),
    ],
    ids=["lists", "keys", "unknown", "deep", "long id", "long number", "digits"],
)
def test_bodies_are_bounded_in_their_parts(
    server: Server, body: bytes, status: int, words: str
) -> None:
    found = server.client.post("/v1/predict", content=body)
    assert found.status_code == status
    assert words in found.text


def test_an_error_names_the_place_of_its_input(server: Server) -> None:
    inputs = ["", "", {"text": "snow", "tasks": ["same"]}, TEXT]
    body = {"inputs": inputs, "tasks": ["intent"]}
    answers = predict(server, **body)["answers"]
    assert answers[2]["error"] == "inputs[2]: task same takes a pair of texts"
    lines = server.client.post(
        "/v1/predict", json=body, headers={"Accept": "application/x-ndjson"}
    ).text.splitlines()
    told = [json.loads(line) for line in lines]
    assert [one["error"] for one in told if one.get("input") == 2] == [answers[2]["error"]]


def test_ids_of_calls_come_back(server: Server) -> None:
    for given, kept in (("abc-1", True), ("x" * 200, False), ("two words", False)):
        response = server.client.get("/livez", headers={"X-Request-Id": given})
        assert (response.headers["x-request-id"] == given) is kept


def test_other_paths_and_methods_are_refused(server: Server) -> None:
    found = problem(server.client.get("/nope"), 404)
    assert (found["code"], "/docs" in found["detail"]) == ("no-such-path", True)
    refused = server.client.get("/v1/predict")
    found = problem(refused, 405)
    assert found["code"] == "method-not-allowed"
    assert "/v1/predict takes POST, not GET" in found["detail"]
    assert refused.headers["allow"] == "POST"


def test_a_compressed_body_is_read(server: Server) -> None:
    body = json.dumps({"inputs": [TEXT], "tasks": ["intent"]}).encode()
    sent = {"content": gzip.compress(body), "headers": {"Content-Encoding": "gzip"}}
    packed = server.client.post("/v1/predict", **sent)
    assert packed.json() == server.client.post("/v1/predict", content=body).json()
    sent["headers"] = {"Content-Encoding": "zstd"}
    assert "expected gzip" in problem(server.client.post("/v1/predict", **sent), 422)["detail"]


def test_tei_is_answered_in_its_shape(server: Server) -> None:
    for path in ("/predict/intent", "/predict?task=intent"):
        one = server.client.post(path, json={"inputs": TEXT})
        assert {entry["label"] for entry in one.json()} == {*LABELS}
        scores = [entry["score"] for entry in one.json()]
        assert scores == sorted(scores, reverse=True)
        assert sum(scores) == pytest.approx(1, abs=1e-4)
        many = server.client.post(path, json={"inputs": [[TEXT], ["snow"]]})
        assert many.json()[0] == one.json()
        assert len(many.json()) == 2
    assert one.headers["x-centra-release"] == "7"
    assert one.headers["x-centra-version"] == "2.1"
    pair = server.client.post("/predict/same", json={"inputs": ["is it", "yes"]}).json()
    assert {entry["label"] for entry in pair} == {"agrees", "denies"}


def test_scores_of_a_multilabel_task_are_its_own(
    server: Server, offline: centra.runtime.Release
) -> None:
    logits = offline.logits(TEXT, "topics")["topics"][0]
    found = server.client.post("/predict/topics", json={"inputs": TEXT}).json()
    by_label = {entry["label"]: entry["score"] for entry in found}
    sigmoid = 1 / (1 + pow(2.718281828459045, -logits))
    assert alike([by_label[label] for label in LABELS], sigmoid.tolist())
    raw = server.client.post("/predict/topics", json={"inputs": TEXT, "raw_scores": True}).json()
    by_label = {entry["label"]: entry["score"] for entry in raw}
    assert alike([by_label[label] for label in LABELS], logits.tolist())


def test_tei_is_refused_as_its_clients_read_it(server: Server) -> None:
    def refused(path: str, body: Any, status: int) -> Any:
        found = problem(server.client.post(path, json=body), status)
        assert found["error"] == found["detail"]
        return found

    assert refused("/predict/nope", {"inputs": TEXT}, 404)["field"] == "task"
    assert refused("/predict", {"inputs": TEXT}, 422)["field"] == "task"
    assert refused("/predict/slots", {"inputs": TEXT}, 422)["field"] == "task"
    assert refused("/predict/intent", {"inputs": ["two", "texts"]}, 422)["field"] == "inputs"
    assert refused("/predict/same", {"inputs": TEXT}, 422)["field"] == "inputs[0]"
    assert refused("/predict/intent", {"inputs": [["a"], [""]]}, 422)["field"] == "inputs[1]"
    long = {"inputs": "snow " * 300}
    assert server.client.post("/predict/intent", json=long).headers["x-centra-truncated"]
    assert refused("/predict/intent", {**long, "truncate": False}, 413)["field"] == "inputs[0]"


def test_vllm_is_answered_in_its_shape(server: Server, offline: centra.runtime.Release) -> None:
    body = {"model": "topics", "input": [TEXT, "snow"], "user": "me"}
    found = server.client.post("/v1/classify", json=body).json()
    assert (found["object"], found["model"]) == ("list", "topics")
    assert [entry["index"] for entry in found["data"]] == [0, 1]
    first = found["data"][0]
    assert first["num_classes"] == len(first["probs"]) == 3
    assert first["label"] == LABELS[first["probs"].index(max(first["probs"]))]
    assert found["usage"]["total_tokens"] > 5
    one = server.client.post("/v1/classify", json={"model": "intent", "input": TEXT}).json()
    assert one["labels"].keys() == {*LABELS}
    assert one["data"][0]["label"] == offline.predict(TEXT)["intent"]["label"]
    refused = server.client.post("/v1/classify", json={"model": "nope", "input": TEXT})
    assert problem(refused, 404)["field"] == "model"


def test_every_call_is_described_with_an_example(server: Server) -> None:
    schema = server.client.get("/openapi.json").json()
    assert {"/v1/predict", "/predict/{task}", "/v1/classify", "/v1/release"} <= schema[
        "paths"
    ].keys()
    for path, methods in schema["paths"].items():
        for call in methods.values():
            assert call["summary"], path
            for content in call.get("requestBody", {}).get("content", {}).values():
                assert content.get("examples") or "binary" in str(content), path
    named = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(schema)))
    assert named <= schema["components"]["schemas"].keys()


def test_the_page_of_calls_needs_no_network(server: Server) -> None:
    page = server.client.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert not re.search(r"(src|href)=.?(https?:)?//", page.text)


def test_a_client_that_offers_another_protocol_is_answered_in_this_one(server: Server) -> None:
    body = json.dumps({"inputs": [TEXT + "\nupgrade: no head"], "tasks": ["intent"]})
    headers = {
        "Connection": "Upgrade, HTTP2-Settings",
        "Upgrade": "h2c",
        "HTTP2-Settings": "AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA",
    }
    for _ in range(2):
        response = server.client.post("/v1/predict", content=body, headers=headers)
        assert response.json()["answers"][0]["tasks"].keys() == {"intent"}
