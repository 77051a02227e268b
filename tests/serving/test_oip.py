"""The Open Inference Protocol, spoken by its public client over HTTP and over gRPC alike."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

import centra
from tests.support import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

    from tests.serving.servers import ServedStore, Server

TEXTS = ["wake me at seven", "play some jazz in new york, please", "is there snow"]
PAIRS = ["yes it is", "no", "in new york"]
LONG = " ".join(["snow"] * 100)


@dataclass(frozen=True)
class Triton:
    """The public client of one transport."""

    module: ModuleType
    client: Any

    def infer(
        self,
        task: str,
        texts: list[str],
        pairs: list[str] | None = None,
        *,
        shape: tuple[int, ...] | None = None,
        outputs: list[str] | None = None,
        **options: Any,
    ) -> Any:
        inputs = []
        for name, values in (("text", texts), ("text_pair", pairs)):
            if values is not None:
                array = np.array(values, dtype=object).reshape(shape or (len(values),))
                tensor = self.module.InferInput(name, list(array.shape), "BYTES")
                tensor.set_data_from_numpy(array)
                inputs.append(tensor)
        if outputs is not None:
            options["outputs"] = [self.module.InferRequestedOutput(name) for name in outputs]
        return self.client.infer(task, inputs, **options)

    def response(self, result: Any) -> dict[str, Any]:
        if self.module is tritonclient.http:
            return result.get_response()
        return result.get_response(as_json=True)


@pytest.fixture(scope="module", params=["http", "grpc"])
def triton(request: pytest.FixtureRequest, server: Server) -> Iterator[Triton]:
    if request.param == "http":
        client = tritonclient.http.InferenceServerClient(server.url.removeprefix("http://"))
        yield Triton(tritonclient.http, client)
    else:
        client = tritonclient.grpc.InferenceServerClient(server.grpc)
        yield Triton(tritonclient.grpc, client)
    client.close()
    # When it is collected it closes again, in whatever thread that is, and gevent refuses others than its own.
    vars(client)["close"] = lambda: None


@pytest.fixture(scope="module")
def predict(served_store: ServedStore) -> Iterator[Callable[..., Any]]:
    """The answers of the same release, offline."""
    with centra.load_release(served_store.source) as release:
        yield release.predict


def texts_in(array: np.ndarray) -> list[Any]:
    return [text.decode() for text in array.flatten()]


def test_the_server_lives_and_is_ready_and_says_what_it_is(triton: Triton) -> None:
    assert triton.client.is_server_live()
    assert triton.client.is_server_ready()
    metadata = triton.client.get_server_metadata()
    name = metadata["name"] if isinstance(metadata, dict) else metadata.name
    assert name == "centra"


def test_a_classification_gives_labels_and_scores(triton: Triton, predict: Any) -> None:
    result = triton.infer("intent", TEXTS)
    expected = [answer["intent"] for answer in predict(TEXTS, "intent")]
    assert texts_in(result.as_numpy("label")) == [answer["label"] for answer in expected]
    assert result.as_numpy("score").dtype == np.float32
    np.testing.assert_allclose(
        result.as_numpy("score"), [answer["score"] for answer in expected], atol=1e-5
    )
    assert result.as_numpy("labels") is None


def test_the_best_labels_come_with_top_k(triton: Triton, predict: Any) -> None:
    result = triton.infer("intent", TEXTS, parameters={"top_k": 2})
    expected = [answer["intent"]["top"] for answer in predict(TEXTS, "intent", top_k=2)]
    assert result.as_numpy("labels").shape == result.as_numpy("scores").shape == (3, 2)
    best = [found["label"] for top in expected for found in top]
    assert texts_in(result.as_numpy("labels")) == best
    assert texts_in(result.as_numpy("label")) == best[::2]


def test_ranked_outputs_without_top_k_have_every_label(triton: Triton) -> None:
    result = triton.infer(
        "intent", TEXTS[:1], outputs=["labels", "scores"], parameters={"top_k": 9}
    )
    every = triton.infer("intent", TEXTS[:1], outputs=["labels", "scores"])
    assert result.as_numpy("labels").shape == every.as_numpy("labels").shape == (1, 3)
    assert {*texts_in(every.as_numpy("labels"))} == {"alarm", "music", "weather"}
    assert every.as_numpy("label") is None


def test_several_labels_are_one_json_list_an_input(triton: Triton, predict: Any) -> None:
    result = triton.infer("topics", TEXTS)
    expected = [answer["topics"]["labels"] for answer in predict(TEXTS, "topics")]
    assert [json.loads(text) for text in texts_in(result.as_numpy("labels"))] == [
        [found["label"] for found in labels] for labels in expected
    ]
    scores = [json.loads(text) for text in texts_in(result.as_numpy("scores"))]
    assert [len(found) for found in scores] == [len(labels) for labels in expected]
    best = triton.infer("topics", TEXTS, parameters={"top_k": 3}).as_numpy("labels")
    assert [len(json.loads(text)) for text in texts_in(best)] == [3, 3, 3]


def test_a_pair_is_two_tensors(triton: Triton, predict: Any) -> None:
    result = triton.infer("same", TEXTS, PAIRS)
    expected = predict(list(zip(TEXTS, PAIRS, strict=True)), "same")
    assert texts_in(result.as_numpy("label")) == [answer["same"]["label"] for answer in expected]


def test_a_regression_gives_values(triton: Triton, predict: Any) -> None:
    np.testing.assert_allclose(
        triton.infer("stars", TEXTS).as_numpy("value"),
        [answer["stars"]["value"] for answer in predict(TEXTS, "stars")],
        atol=1e-5,
    )


def test_spans_are_one_json_list_an_input(triton: Triton, predict: Any) -> None:
    result = triton.infer("slots", TEXTS)
    found = [json.loads(text) for text in texts_in(result.as_numpy("spans"))]
    assert [[(span["label"], span["start"], span["end"]) for span in spans] for spans in found] == [
        [(span["label"], span["start"], span["end"]) for span in answer["slots"]["spans"]]
        for answer in predict(TEXTS, "slots")
    ]


def test_only_what_is_wanted_comes_in_the_order_that_is_wanted(triton: Triton) -> None:
    result = triton.infer("intent", TEXTS, outputs=["score"], request_id="42")
    response = triton.response(result)
    assert [output["name"] for output in response["outputs"]] == ["score"]
    assert response["id"] == "42"


def test_texts_in_a_column_are_texts(triton: Triton) -> None:
    column = triton.infer("intent", TEXTS, shape=(3, 1)).as_numpy("label")
    np.testing.assert_array_equal(column, triton.infer("intent", TEXTS).as_numpy("label"))


def test_an_answer_names_version_release_and_module(triton: Triton, server: Server) -> None:
    response = triton.response(triton.infer("intent", TEXTS[:1]))
    assert (response["model_name"], response["model_version"]) == ("intent", "2.1")
    parameters = {
        name: value if not isinstance(value, dict) else next(iter(value.values()))
        for name, value in response["parameters"].items()
    }
    assert int(parameters["release"]) == 7
    assert len(parameters["module"]) == 12
    assert "truncated" not in parameters


def test_a_cut_input_says_so(triton: Triton, predict: Any) -> None:
    truncated = predict(LONG, "intent")["intent"]["truncated"]
    response = triton.response(triton.infer("intent", ["short", LONG]))
    cut = response["parameters"]["truncated"]
    text = cut if isinstance(cut, str) else cut["string_param"]
    assert json.loads(text) == [{"input": 1, **truncated}]


def test_metadata_tell_versions_tensors_labels_and_decision(triton: Triton) -> None:
    as_json = {} if triton.module is tritonclient.http else {"as_json": True}
    metadata = triton.client.get_model_metadata("topics", **as_json)
    assert metadata["versions"] == ["2.1"]
    assert [tensor["name"] for tensor in metadata["inputs"]] == ["text"]
    assert [tensor["name"] for tensor in metadata["outputs"]] == ["labels", "scores"]
    config = triton.client.get_model_config("topics", **as_json)
    parameters = config.get("config", config)["parameters"]
    found = {name: value["string_value"] for name, value in parameters.items()}
    assert json.loads(found["labels"]) == ["alarm", "music", "weather"]
    assert (found["kind"], found["activation"]) == ("multilabel", "sigmoid")
    assert (json.loads(found["max_length"]), json.loads(found["threshold"])) == (64, 0.5)


def test_the_index_lists_every_task(triton: Triton) -> None:
    as_json = {} if triton.module is tritonclient.http else {"as_json": True}
    index = triton.client.get_model_repository_index(**as_json)
    models = index if isinstance(index, list) else index["models"]
    assert {model["name"]: model["version"] for model in models}["intent"] == "2.1"
    assert {model["state"] for model in models} == {"READY"}


def test_a_version_may_be_asked_for_and_no_other_answers(triton: Triton) -> None:
    assert triton.client.is_model_ready("intent")
    assert triton.client.is_model_ready("intent", "2.1")
    assert not triton.client.is_model_ready("intent", "2.0")
    assert not triton.client.is_model_ready("nothing")
    assert triton.infer("intent", TEXTS, model_version="2.1").as_numpy("label").shape == (3,)
    refused(triton, "404", "NOT_FOUND", "served in version 2.1", "intent", TEXTS, model_version="9")


def refused(
    triton: Triton, http: str, grpc: str, words: str, *arguments: Any, **options: Any
) -> None:
    with pytest.raises(InferenceServerException, match=words) as caught:
        triton.infer(*arguments, **options)
    expected = http if triton.module is tritonclient.http else f"StatusCode.{grpc}"
    assert caught.value.status() == expected


@pytest.mark.parametrize(
    ("words", "task", "options"),
    [
        ("no output 'nonsense'; task intent gives label", "intent", {"outputs": ["nonsense"]}),
        ("output label is wanted twice", "intent", {"outputs": ["label", "label"]}),
        ("there is no input 'text_pair'; task intent takes text", "intent", {"pairs": PAIRS}),
        ("input text_pair is missing; task same takes", "same", {}),
        ("text has 3 and text_pair has 2 elements", "same", {"pairs": PAIRS[:2]}),
        (r"shape is \[1, 3\]; expected \[n\]", "intent", {"shape": (1, 3)}),
        ("no parameter 'topk'; known are", "intent", {"parameters": {"topk": 1}}),
        ("top_k is 0; expected a whole number", "intent", {"parameters": {"top_k": 0}}),
        ("top_k is '1'; expected a whole number", "intent", {"parameters": {"top_k": "1"}}),
    ],
)
def test_what_is_wrong_is_refused_and_named(
    triton: Triton, words: str, task: str, options: dict[str, Any]
) -> None:
    refused(triton, "400", "INVALID_ARGUMENT", words, task, TEXTS, **options)


def test_an_input_that_cannot_be_answered_is_named(triton: Triton) -> None:
    refused(triton, "400", "INVALID_ARGUMENT", "input 2.*empty", "intent", ["a", " ", "b"])


def test_an_unknown_task_is_not_found(triton: Triton) -> None:
    refused(triton, "404", "NOT_FOUND", "no model 'nothing'; this server has", "nothing", TEXTS)


def test_time_that_is_over_is_a_deadline(triton: Triton) -> None:
    refused(triton, "504", "DEADLINE_EXCEEDED", "time", "intent", TEXTS, timeout=1)


def test_more_inputs_than_are_taken_are_too_many(triton: Triton) -> None:
    refused(triton, "413", "INVALID_ARGUMENT", "elements; at most 1024", "intent", ["a"] * 1025)


def test_the_example_of_the_docs_runs(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    section = page.partition("## Open Inference Protocol")[2]
    (code,) = re.findall(
        r"^```python\n(.*?)^```", section.partition("\n## ")[0], re.MULTILINE | re.DOTALL
    )
    exec(code.replace("127.0.0.1:8080", server.url.removeprefix("http://")), {})
    printed = capsys.readouterr().out
    assert len(re.findall(r"b'(alarm|music|weather)'", printed)) == 6
