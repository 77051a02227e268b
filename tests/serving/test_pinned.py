"""What ``examples/deploy/requirements-serve.txt`` pins is enough for a server, by itself."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.deploy.requirements import installed
from tests.serving.servers import running
from tests.support import ROOT

if TYPE_CHECKING:
    from tests.serving.servers import ServedStore


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``centra`` with what is pinned and nothing else to import."""
    folder = tmp_path_factory.mktemp("pinned")
    site = folder / "site"
    owners: dict[str, set[str]] = {}
    for name in installed():
        for file in distribution(name).files or ():
            owners.setdefault(file.parts[0], set()).add(name)
    for name in installed():
        for file in distribution(name).files or ():
            # What several share, as google, is put together file by file.
            shared = len(owners[file.parts[0]]) > 1
            link = site / (file if shared else file.parts[0])
            if file.parts[0] != ".." and not link.exists():
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(Path(str(distribution(name).locate_file(link.relative_to(site)))))
    (described,) = {
        file.parent for file in distribution("centra").files or () if file.name == "METADATA"
    }
    (site / described).symlink_to(Path(str(distribution("centra").locate_file(described))))
    for name in ("_centra_command.py", "centra", "cli", "migrations", "registry"):
        (site / name).symlink_to(ROOT / name)
    script = folder / "centra"
    script.write_text(
        f"#!/bin/sh\nPYTHONPATH={site} exec {sys.executable} -S -c "
        '"from _centra_command import run; run()" "$@"\n'
    )
    script.chmod(0o755)
    return script


def test_a_server_runs_on_what_is_pinned_alone(
    program: Path, served_store: ServedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.serving.servers.CENTRA", program)
    with running(served_store.source) as server:
        body = {"inputs": ["wake me at seven"]}
        answered = server.client.post("/v1/predict", json=body).json()["answers"][0]
        assert {"intent", "slots", "stars", "topics"} == answered["tasks"].keys()
        assert server.client.get("/metrics").status_code == 200
        assert server.client.get("/openapi.json").status_code == 200
        maps = Path(f"/proc/{server.process.pid}/maps").read_text()
        assert "onnxruntime" in maps
        assert server.terminate() == 0


def test_signatures_and_traces_need_nothing_more(program: Path) -> None:
    code = (
        "import _centra_command, centra.releases.signing, model_signing.verifying; "
        "import opentelemetry.sdk.trace, opentelemetry.exporter.otlp.proto.http.trace_exporter"
    )
    script = program.read_text().replace('"from _centra_command import run; run()" "$@"', '"$1"')
    subprocess.run(["sh", "-c", script, "sh", code], check=True)
