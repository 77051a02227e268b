"""What ``centra`` understands, and which variables it reads."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any, cast

from cli.serve import serve
from tests.support import ROOT

if TYPE_CHECKING:
    from centra.serving.batcher import Batcher


def serve_options(words: list[str]) -> dict[str, Any]:
    """The options and the argument of ``centra serve``, as its own parser reads them.

    Raises:
        UsageError: there is no such option.
    """
    given, rest, _ = serve.make_parser(serve.context_class(serve)).parse_args([*words])
    assert not rest, rest
    return {name: value for name, value in given.items() if isinstance(value, str | list | tuple)}


@cache
def variables() -> frozenset[str]:
    """The environment variables that Centra, boto3 and libpq read, by their sources."""
    from botocore.configprovider import BOTOCORE_DEFAUT_SESSION_VARIABLES as OF_BOTOCORE
    from botocore.credentials import EnvProvider

    ours = {
        name
        for package in ("centra", "registry", "cli")
        for file in (ROOT / package).rglob("*.py")
        for name in re.findall(r'"((?:CENTRA|OTEL)_[A-Z_]+)"', file.read_text())
    }
    botos = {
        name
        for _, names, *_ in OF_BOTOCORE.values()
        for name in ([names] if isinstance(names, str) else names or [])
    }
    keys = {EnvProvider.ACCESS_KEY, EnvProvider.SECRET_KEY, "AWS_SHARED_CREDENTIALS_FILE"}
    # botocore makes these of AWS_ENDPOINT_URL and the service; libpq documents PGPASSWORD.
    return frozenset(
        {*ours, *botos, *keys, "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "PGPASSWORD"}
    )


def answers(path: str) -> bool:
    """Whether the server has something at a path."""
    from starlette.routing import Match

    scope = {"type": "http", "method": "GET", "path": path, "root_path": "", "headers": []}
    return any(route.matches(scope)[0] is Match.FULL for route in _app().routes)


@cache
def _app() -> Any:
    from centra.serving.http.app import create_app

    return create_app(cast("Batcher", None))
