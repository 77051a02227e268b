"""Schemas of what the examples hold, from packages that carry them: nothing is asked of a network.

Kubernetes' own are in ``kubernetes-validate``, in their strict form. KServe's come from the models of its
client, of which the sources are read: to import them takes versions of other packages that are not ours.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from jsonschema import Draft202012Validator

OLDEST, NEWEST = "1.30", kubernetes_validate.latest_version()
"""Versions of Kubernetes; in the first, a preStop of ``sleep`` is on by itself."""

_SIMPLE = {
    "bool": "boolean",
    "float": "number",
    "int": "integer",
    "object": "object",
    "str": "string",
}
_PLACES = ("api.core", "api.apps", "api.autoscaling", "apimachinery.pkg.apis.meta")


def documents(path: Path) -> list[dict[str, Any]]:
    """Every object of a YAML file."""
    return [one for one in yaml.safe_load_all(path.read_text()) if one]


def check_kubernetes(document: dict[str, Any]) -> None:
    """Validate an object against the oldest and the newest version of Kubernetes, strictly.

    Raises:
        ValidationError: it does not fit, or has a field that there is not.
    """
    for version in (OLDEST, NEWEST):
        kubernetes_validate.validate(document, version, strict=True)


def check_service_monitor(document: dict[str, Any]) -> None:
    """Validate an object of the Prometheus operator; none of its fields may be unknown.

    Raises:
        ValueError: it does not fit.
    """
    models = pytest.importorskip(
        "cloudcoil.models.prometheus_operator.v1", reason="no models of the Prometheus operator"
    )
    read = models.ServiceMonitor.model_validate(document)
    assert read.model_dump(mode="json", by_alias=True, exclude_unset=True) == document


def check_kserve(document: dict[str, Any]) -> None:
    """Validate one of KServe's objects, with the parts of Kubernetes in it, strictly.

    Raises:
        ValidationError: it does not fit, or has a field that there is not.
    """
    version = document["apiVersion"].rpartition("/")[2]
    _kserve_validator(f"{version.capitalize()}{document['kind']}").validate(document)


@cache
def _kserve_validator(name: str) -> Draft202012Validator:
    folder = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema"
    file = folder / f"v{NEWEST}-local-strict" / "_definitions.json"
    schema = {**json.loads(file.read_text()), "$ref": f"#/$defs/{name}"}
    waiting = [name]
    while waiting:
        one = waiting.pop()
        if one not in schema["$defs"]:
            schema["$defs"][one], named = _kserve_model(one, schema["$defs"])
            waiting += named
    return Draft202012Validator(schema)


def _kserve_model(name: str, known: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The schema of a model of KServe's client, and the models that it names."""
    path = _kserve_file(name)
    assert path, f"KServe has no {name}"
    body = next(
        node for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef)
    ).body
    tables = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    types, keys = tables["openapi_types"], tables["attribute_map"]
    init = next(
        node for node in body if isinstance(node, ast.FunctionDef) and node.name == "__init__"
    )
    # What may be absent is assigned below an if.
    required = [
        keys[node.targets[0].attr]
        for node in init.body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Attribute)
        and node.targets[0].attr in types
    ]
    named: list[str] = []
    properties = {keys[field]: _type(text, known, named) for field, text in types.items()}
    model = {"type": "object", "properties": properties, "additionalProperties": False}
    return model | ({"required": required} if required else {}), named


def _type(text: str, known: dict[str, Any], named: list[str]) -> dict[str, Any]:
    if match := re.fullmatch(r"list\[(.*)\]", text):
        return {"type": "array", "items": _type(match[1], known, named)}
    if match := re.fullmatch(r"dict\(str, (.*)\)", text):
        return {"type": "object", "additionalProperties": _type(match[1], known, named)}
    if text in _SIMPLE:
        return {"type": _SIMPLE[text]}
    if _kserve_file(text):
        named.append(text)
        return {"$ref": f"#/$defs/{text}"}
    kubernetes = re.fullmatch(r"(?:K8sIoApi[A-Z][a-z]+)?V(\d(?:(?:alpha|beta)\d)?)(\w+)", text)
    for place in _PLACES if kubernetes else ():
        name = f"io.k8s.{place}.v{kubernetes[1]}.{kubernetes[2]}"
        if name in known:
            return {"$ref": f"#/$defs/{name}"}
    # Neither KServe's own nor Kubernetes', such as Knative's URL: none of these stands in the examples.
    return {"not": {}}


def _kserve_file(name: str) -> Path | None:
    spec = importlib.util.find_spec("kserve")
    if spec is None or spec.origin is None:
        pytest.skip("KServe's client is not installed: make setup")
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
    path = Path(spec.origin).parent / "models" / f"{snake}.py"
    return path if path.exists() else None
