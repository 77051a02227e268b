"""``mlflow``: a model that ``mlflow models serve`` serves, and that MLflow's registry takes.

``MLmodel`` says that Centra loads it, ``release/`` is a release folder, and the rest says which packages
an environment for it needs. No code travels along.
"""

from __future__ import annotations

import json
import platform
from typing import TYPE_CHECKING, Any

from centra.exports.base import ExportPrecision, Format, Package, Written

if TYPE_CHECKING:
    from pathlib import Path

    from centra.exports.base import Source
    from centra.progress import Progress

__all__ = ["MLFLOW"]

_EXAMPLE, _SERVED = "input_example.json", "serving_input_example.json"
"""Rows for whoever looks at the model, and the same as a request to its server."""


def _write(
    source: Source, folder: Path, _precision: ExportPrecision, progress: Progress
) -> Written:
    from centra.releases.folder_writing import write_folder

    write_folder(source.manifest, source.reader, folder / "release", progress)
    for name, content in _documents(source).items():
        (folder / name).write_text(content)
    return Written(parity=_parity(source, folder), notes=_notes(source))


def _documents(source: Source) -> dict[str, str]:
    import yaml

    import centra

    packages = [f"centra[serve]=={centra.__version__}", "mlflow"]
    python = platform.python_version()
    conda: dict[str, Any] = {
        "name": "mlflow-env",
        "channels": ["conda-forge"],
        "dependencies": [f"python={python}", "pip", {"pip": packages}],
    }
    environment = {
        "python": python,
        "build_dependencies": ["pip"],
        "dependencies": ["-r requirements.txt"],
    }
    function = {
        "loader_module": "centra.runtime.pyfunc",
        "data": "release",
        "env": {"conda": "conda.yaml", "virtualenv": "python_env.yaml"},
        "python_version": python,
    }
    model = {
        "flavors": {"python_function": function},
        "signature": _signature(source),
        "saved_input_example_info": {
            "artifact_path": _EXAMPLE,
            "serving_input_path": _SERVED,
            "type": "dataframe",
            "pandas_orient": "split",
        },
        "metadata": {
            "centra_release": f"sha256:{source.manifest.digest}",
            **({} if source.release is None else {"centra_release_number": source.release}),
            "centra_versions": dict(source.versions),
        },
    }
    example = _example(source)
    return {
        "MLmodel": yaml.safe_dump(model, sort_keys=False),
        "conda.yaml": yaml.safe_dump(conda, sort_keys=False),
        "python_env.yaml": yaml.safe_dump(environment, sort_keys=False),
        "requirements.txt": "".join(f"{package}\n" for package in packages),
        _EXAMPLE: json.dumps(example),
        _SERVED: json.dumps({"dataframe_split": example}),
    }


def _forms(source: Source) -> set[str]:
    """What tasks take: ``single`` texts, ``pair``, or both."""
    return {entry.input for entry in source.manifest.tasks.values()}


def _signature(source: Source) -> dict[str, str]:
    forms = _forms(source)
    inputs = [{"type": "string", "name": "text", "required": True}]
    if "pair" in forms:
        inputs.append({"type": "string", "name": "text_pair", "required": "single" not in forms})
    # An object of the task's kind; which tasks answer a row depends on it, and on what is asked for.
    outputs = [{"type": "any", "name": name, "required": False} for name in source.manifest.tasks]
    params = [
        {"name": "tasks", "type": "string", "default": [], "shape": [-1]},
        {"name": "top_k", "type": "long", "default": 0, "shape": None},
    ]
    parts = {"inputs": inputs, "outputs": outputs, "params": params}
    return {name: json.dumps(part) for name, part in parts.items()}


def _example(source: Source) -> dict[str, Any]:
    """A row of each form that tasks take."""
    forms = _forms(source)
    rows: dict[str, list[str | None]] = {
        "single": ["Wake me at seven.", None],
        "pair": ["Wake me at seven.", "Set an alarm."],
    }
    columns = ["text", "text_pair"] if "pair" in forms else ["text"]
    return {
        "columns": columns,
        "data": [rows[form][: len(columns)] for form in rows if form in forms],
    }


def _notes(source: Source) -> tuple[str, ...]:
    tagging = [name for name, entry in source.manifest.tasks.items() if entry.kind == "tagging"]
    if not tagging:
        return ()
    return (f"{', '.join(tagging)}: rows are texts here, and cannot be lists of tokens",)


def _parity(source: Source, folder: Path) -> dict[str, float]:
    """What is loaded as MLflow loads it, held against every probe.

    Raises:
        IncompatibleError: the logits of a task that is computed in fp32 are others.
    """
    from centra.exports.checking import check_difference
    from centra.runtime.pyfunc import ReleaseModel

    with ReleaseModel(str(folder / "release")).release as release:
        return {
            task: check_difference(
                task,
                *release.probe_logits(task),
                ExportPrecision(source.manifest.tasks[task].precision),
                peer="MLflow's model",
            )
            for task in release.tasks
        }


MLFLOW = Format(
    name="mlflow",
    summary="a model of MLflow, for 'mlflow models serve' and its registry",
    several=True,
    write=_write,
    packages=(
        Package(module="onnxruntime", install="onnxruntime>=1.22"),
        Package(module="yaml", install="pyyaml"),
    ),
)
