"""The images' steps, carried out: what a server is in a container, without Docker. ``make image-check``."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.deploy import image
from tests.deploy.requirements import CONSTRAINTS, LEFT_OUT, pinned
from tests.serving.servers import make_modules, make_store
from tests.support import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from centra.formats.task_module import TaskModule
    from tests import support

DEPLOY = ROOT / "examples" / "deploy"

LACKING = image.lacking() if "IMAGE_CHECK" in os.environ else None

pytestmark = [
    pytest.mark.skipif(
        "IMAGE_CHECK" not in os.environ, reason="installs packages for a minute: make image-check"
    ),
    pytest.mark.skipif(LACKING is not None, reason=f"needs {LACKING}"),
    pytest.mark.timeout(1200),
]


@pytest.fixture(scope="module")
def built() -> image.Image:
    """The server's image for CPUs."""
    work = ROOT / "build" / "image"
    return image.build(DEPLOY / "Dockerfile", ROOT, work, target="serve", arguments={})


@pytest.mark.skipif(
    os.environ.get("IMAGE_CHECK") != "all",
    reason="installs torch, twice: make image-check IMAGES=all",
)
@pytest.mark.parametrize(
    ("file", "target"), [("Dockerfile", "registry"), ("Dockerfile.gpu", "serve")]
)
def test_the_larger_images_are_made_and_have_torch(file: str, target: str) -> None:
    work = ROOT / "build" / "larger-image"
    # In place of torch's own index, which has builds for CPUs alone and is not reached from everywhere.
    index = {"TORCH_INDEX": "https://pypi.org/simple"}
    made = image.build(DEPLOY / file, ROOT, work, target=target, arguments=index)
    for words in (["--version"], ["serve", "--help"]):
        subprocess.run(made.run([*made.entrypoint, *words]), capture_output=True, check=True)
    code = "import torch, onnxruntime; print(torch.__version__)"
    done = subprocess.run(
        made.run(["python", "-c", code]), capture_output=True, text=True, check=True
    )
    assert done.stdout.partition("+")[0].strip() == CONSTRAINTS["torch"]
    done = subprocess.run(made.run(["stat", "-c", "%u", "."]), capture_output=True, check=True)
    assert done.stdout.strip() == (b"65532" if target == "registry" else b"0")
    shutil.rmtree(work)


@pytest.fixture
def store(
    tmp_path: Path, tiny_backbone: support.Backbone, make_module: Callable[..., TaskModule]
) -> Path:
    """A folder with a release that production names, which everybody may read and nobody writes."""
    served = make_store(tmp_path / "store", tiny_backbone)
    served.publish(make_modules(make_module), number=7)
    subprocess.run(["chmod", "-R", "a+rX,a-w", tmp_path], check=True)
    return served.store.root


def test_it_holds_what_the_file_pins_and_neither_torch_nor_transformers(built: image.Image) -> None:
    code = (
        "from importlib.metadata import distributions as all\n"
        "print({one.name.lower().replace('_', '-').replace('.', '-'): one.version for one in all()})"
    )
    done = subprocess.run(built.run(["python", "-c", code]), capture_output=True, check=True)
    installed = json.loads(done.stdout.decode().replace("'", '"'))
    assert installed.pop("centra")
    assert installed == pinned()
    assert not installed.keys() & LEFT_OUT.keys()
    packages = built.find("/opt/centra/lib/python3.11/site-packages")
    assert {"centra", "cli", "_centra_command.py"} <= {file.name for file in packages.iterdir()}
    size = sum(file.lstat().st_size for file in built.find("/opt/centra").rglob("*"))
    print(f"\n/opt/centra: {size / 2**20:.0f} MiB")
    assert size < 400 * 2**20


def test_it_answers_as_nobody_on_a_tree_that_cannot_be_written_to(
    built: image.Image, store: Path
) -> None:
    words = built.run(
        [*built.entrypoint, *built.command],
        mounts=[f"{store}:/srv/store"],
        environment={"CENTRA_STORE": "/srv/store"},
    )
    ask = (
        "import json, urllib.request as u; "
        "b = json.dumps({'inputs': ['wake me at seven'], 'tasks': ['intent']}).encode(); "
        "print(u.urlopen('http://127.0.0.1:8080/v1/predict', b).read().decode())"
    )
    with image.started(words) as server:
        server.wait_for("listening on http://0.0.0.0:8080")
        health = server.execute(built, built.health)
        assert (health.returncode, health.stderr) == (0, "")
        answer = json.loads(server.execute(built, ["python", "-c", ask]).stdout)
        assert answer["release"]["release"] == 7
        assert answer["answers"][0]["tasks"]["intent"]["label"]
        status = server.execute(built, ["cat", "/proc/1/status"]).stdout
        assert "Uid:\t65532\t65532\t65532\t65532" in status
        assert "CapBnd:\t0000000000000000" in status
        assert server.execute(built, ["touch", "/opt/centra/here"]).returncode == 1
        assert server.execute(built, ["touch", "/cache/here", "/tmp/here"]).returncode == 0
        imported = server.execute(built, ["cat", "/proc/1/maps"]).stdout
        assert "onnxruntime" in imported
        assert "torch" not in imported
        code, log = server.terminate()
        assert code == 0
        assert log.endswith("ending: calls that have begun are answered\nended\n")


def test_its_health_fails_where_no_server_answers(built: image.Image) -> None:
    done = subprocess.run(built.run(built.health), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "ConnectionRefusedError" in done.stderr
