"""Whatever is sent to the calls that the schema describes, the server answers as the schema says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

if TYPE_CHECKING:
    from schemathesis import APIOperation, Case

    from tests.serving.servers import Server

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
_MODES = [schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE]


def takes_something(call: APIOperation) -> bool:
    """Whether there is something that can be sent wrongly."""
    return bool(call.body or call.query)


def test_every_call_is_answered_as_described(server: Server) -> None:
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    calls = [found.ok() for found in schema.get_all_operations()]
    assert {call.path for call in calls} >= {"/v1/predict", "/predict/{task}", "/v1/classify"}
    for call in calls:
        for mode in _MODES if takes_something(call) else _MODES[:1]:

            @settings(max_examples=10, suppress_health_check=[*HealthCheck])
            @given(case=call.as_strategy(generation_mode=mode))
            def check(case: Case) -> None:
                case.call_and_validate(checks=CHECKS)

            check()
