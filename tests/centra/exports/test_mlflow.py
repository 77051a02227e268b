"""Releases as models of MLflow: its own server gives the release's own answers."""

from __future__ import annotations

import json
import math
import re
import shutil
import urllib.request
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from centra.exports import format_named, write_export
from centra.runtime import load_release
from centra.runtime.pyfunc import _load_pyfunc
from tests.mlflow_server import mlflow_program
from tests.support import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.centra.exports.conftest import Exported

TEXTS = ["wake me at seven", "rain in oslo tomorrow"]


@pytest.fixture(scope="module")
def model(release_on: Callable[[str], Exported], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mlflow") / "model"
    export = write_export(release_on("bert").source, format_named("mlflow"), folder)
    assert export.parity.keys() == release_on("bert").modules.keys()
    assert max(export.parity.values()) < 1e-4
    assert export.notes == ("slots: rows are texts here, and cannot be lists of tokens",)
    return folder


def test_rows_are_answered_as_by_the_release(model: Path) -> None:
    pandas = pytest.importorskip("pandas")
    loaded = _load_pyfunc(str(model / "release"))
    with load_release(model / "release", engine="onnx") as release:
        expected = release.predict(TEXTS)
        pair = {"text": "rain", "text_pair": "sun"}
        both = release.predict(["rain", pair])
    assert loaded.predict(pandas.DataFrame({"text": TEXTS, "other": [1, 2]})) == expected
    assert loaded.predict(TEXTS) == expected
    assert loaded.predict(TEXTS[0]) == expected[:1]
    table = pandas.DataFrame({"text": ["rain", "rain"], "text_pair": [math.nan, "sun"]})
    assert loaded.predict(table) == both
    one = loaded.predict(TEXTS, params={"tasks": ["intent"], "top_k": 2})
    assert [answer.keys() for answer in one] == [{"intent"}] * 2
    assert len(one[0]["intent"]["top"]) == 2
    loaded.release.close()


@pytest.mark.filterwarnings("ignore::UserWarning")  # MLflow's, about types of its own.
def test_mlflow_loads_and_describes_it(model: Path, release_on: Callable[[str], Exported]) -> None:
    mlflow = pytest.importorskip("mlflow")
    pandas = pytest.importorskip("pandas")
    described = mlflow.models.Model.load(str(model))
    signature = described.signature
    assert signature.inputs.input_names() == ["text", "text_pair"]
    assert signature.outputs.input_names() == [*release_on("bert").modules]
    assert [param.name for param in signature.params] == ["tasks", "top_k"]
    example = described.load_input_example(str(model))
    loaded = mlflow.pyfunc.load_model(str(model))
    single, pair = loaded.predict(example)
    assert pair.keys() == {"stars"}
    assert single.keys() == release_on("bert").modules.keys() - {"stars"}
    chosen = loaded.predict(pandas.DataFrame({"text": TEXTS}), params={"tasks": ["slots"]})
    assert [answer.keys() for answer in chosen] == [{"slots"}] * 2
    with pytest.raises(mlflow.MlflowException, match=r"missing inputs \['text'\]"):
        loaded.predict(pandas.DataFrame({"texts": TEXTS}))


def test_nothing_of_it_is_code(model: Path) -> None:
    described = yaml.safe_load((model / "MLmodel").read_text())
    function = described["flavors"]["python_function"]
    assert function["loader_module"] == "centra.runtime.pyfunc"
    assert "code" not in function
    assert not [path for path in model.rglob("*") if path.suffix in (".py", ".pkl", ".pth")]
    assert described["metadata"]["centra_versions"]["intent"] == "1.0"


def test_mlflows_own_server_serves_it(model: Path, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / "model")
    described = (ROOT / "docs" / "exports.md").read_text()
    serve = ("models", "serve", "-m", str(tmp_path / "model"), "--env-manager", "local")
    assert f"mlflow {' '.join(serve).replace(serve[3], 'assistant')}\n" in described
    with (
        load_release(model / "release", engine="onnx") as release,
        mlflow_program(tmp_path, *serve, health="/ping") as server,
    ):
        texts = [*TEXTS, "naïve 東京 \N{MELTING FACE}", "rain " * 600]
        rows: list[Any] = [{"text": text} for text in texts]
        pairs = [{"text": one, "text_pair": other} for one, other in pairwise(texts)]
        assert ask(server, {"dataframe_records": rows}) == release.predict(texts)
        assert ask(server, {"dataframe_records": pairs}) == release.predict(pairs)
        (shown,) = re.findall(r"-d '(\{\"dataframe_records.*\})'", described)
        assert ask(server, json.loads(shown)) == release.predict(["wake me at seven"], ["intent"])
        example = json.loads((model / "serving_input_example.json").read_text())
        single, (text, text_pair) = example["dataframe_split"]["data"]
        both = [single[0], {"text": text, "text_pair": text_pair}]
        assert ask(server, example) == release.predict(both)


def ask(server: str, body: object) -> list[dict[str, Any]]:
    request = urllib.request.Request(
        f"{server}/invocations",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)["predictions"]
