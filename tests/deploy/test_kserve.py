"""KServe's objects: their schemas, and that they fit the server."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import pytest

from tests.deploy.commands import answers, serve_options, variables
from tests.deploy.dockerfile import read_stages
from tests.deploy.schemas import check_kserve, documents
from tests.support import ROOT

DEPLOY = ROOT / "examples" / "deploy"
FOLDER = DEPLOY / "kserve"
SERVICES = ("inferenceservice.yaml", "inferenceservice-folder.yaml")
Object = dict[str, Any]


@pytest.fixture(scope="module")
def runtime() -> Object:
    """How a server is started."""
    (one,) = documents(FOLDER / "servingruntime.yaml")
    return one


@pytest.fixture(params=SERVICES)
def service(request: pytest.FixtureRequest) -> Object:
    """What a server serves."""
    (one,) = documents(FOLDER / request.param)
    return one


@pytest.mark.parametrize("name", ["servingruntime.yaml", *SERVICES])
def test_an_object_fits_its_schema(name: str) -> None:
    for document in documents(FOLDER / name):
        check_kserve(document)


def test_a_service_finds_its_runtime(runtime: Object, service: Object) -> None:
    model = service["spec"]["predictor"]["model"]
    assert model["runtime"] == runtime["metadata"]["name"]
    formats = {one["name"] for one in runtime["spec"]["supportedModelFormats"]}
    assert model["modelFormat"]["name"] in formats
    assert model["protocolVersion"] in runtime["spec"]["protocolVersions"]


def test_its_arguments_come_behind_the_runtimes(runtime: Object, service: Object) -> None:
    (container,) = runtime["spec"]["containers"]
    command, *words = container["args"]
    model = service["spec"]["predictor"]["model"]
    given = serve_options([*words, *model["args"]])
    assert command == "serve"
    assert [given["reference"]] == model["args"]
    ports = {port["name"]: str(port["containerPort"]) for port in container["ports"]}
    assert ports == {"http1": given["port"], "h2c": given["grpc_port"]}
    assert runtime["spec"]["annotations"]["prometheus.io/port"] == given["port"]
    # Where KServe's storage initializer puts what it has fetched.
    assert ("storageUri" in model) == (given["reference"] == "/mnt/models")
    assert {variable["name"] for variable in model.get("env", [])} <= variables()


def test_it_is_the_image_and_its_server(runtime: Object, service: Object) -> None:
    (container,) = runtime["spec"]["containers"]
    image = read_stages(DEPLOY / "Dockerfile")[1]["serve"]
    user, _, group = image.last("USER").text.partition(":")
    context = container["securityContext"]
    assert (str(context["runAsUser"]), str(context["runAsGroup"])) == (user, group)
    assert {mount["mountPath"] for mount in container["volumeMounts"]} == {
        *image.last("VOLUME").words
    }
    assert container["name"] == "kserve-container"
    assert container["image"].rpartition(":")[2] == version("centra")
    probes = [container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "readiness", "liveness")]
    assert all(answers(probe["path"]) for probe in probes)
    (deployment,) = documents(DEPLOY / "kubernetes" / "base" / "deployment.yaml")
    pod = deployment["spec"]["template"]["spec"]
    for part in ("resources", "lifecycle"):
        assert container[part] == pod["containers"][0][part]
    grace = service["spec"]["predictor"]["terminationGracePeriodSeconds"]
    assert grace == pod["terminationGracePeriodSeconds"]
