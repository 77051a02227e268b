"""``python -m registry.documents`` prints the JSON Schema of the whole set."""

from __future__ import annotations

import json
import pkgutil
from importlib import import_module

from pydantic.json_schema import models_json_schema

import registry.documents as package
from registry.documents.base import Document

for module in pkgutil.iter_modules(package.__path__):
    if module.name != "__main__":
        import_module(f"{package.__name__}.{module.name}")


def _models(base: type[Document]) -> list[type[Document]]:
    return [model for child in base.__subclasses__() for model in (child, *_models(child))]


_, schemas = models_json_schema(
    [(model, "serialization") for model in _models(Document)], title="What Centra prints as JSON"
)
print(json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **schemas}, indent=2))  # noqa: T201 - it prints
