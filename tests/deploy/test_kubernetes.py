"""The plain manifests: their schemas, and that they fit one another, the server and the image."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from centra.serving import endpoint
from centra.serving.metrics import Metrics
from centra.serving.standing import Standing
from centra.serving.tokens import Tokens
from tests.deploy.commands import answers, serve_options, variables
from tests.deploy.dockerfile import read_stages
from tests.deploy.schemas import check_kubernetes, check_service_monitor, documents
from tests.support import ROOT

if TYPE_CHECKING:
    from pathlib import Path

DEPLOY = ROOT / "examples" / "deploy"
FOLDER = DEPLOY / "kubernetes"
FILES = sorted(
    path
    for path in FOLDER.rglob("*.yaml")
    if path.name not in ("adapter-values.yaml", "deployment.patch.yaml", "kustomization.yaml")
)
Object = dict[str, Any]


@pytest.fixture(scope="module")
def objects() -> dict[str, Object]:
    """Every object that is applied, by its kind."""
    return {one["kind"]: one for path in FILES for one in documents(path)}


@pytest.fixture(scope="module")
def pod(objects: dict[str, Object]) -> Object:
    """The template of the pods."""
    return objects["Deployment"]["spec"]["template"]


@pytest.fixture(scope="module")
def container(pod: Object) -> Object:
    """The one container."""
    (one,) = pod["spec"]["containers"]
    return one


@pytest.fixture(scope="module")
def secrets() -> dict[str, Object]:
    """The secrets that are shown, by name."""
    return {
        one["metadata"]["name"]: one["stringData"]
        for one in documents(FOLDER / "secrets.example.yaml")
    }


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_manifest_fits_its_schema(path: Path) -> None:
    for document in documents(path):
        if document["kind"] == "ServiceMonitor":
            check_service_monitor(document)
        else:
            check_kubernetes(document)


def test_what_is_applied_is_all_that_there_is() -> None:
    (base,) = documents(FOLDER / "base" / "kustomization.yaml")
    files = {path.name for path in (FOLDER / "base").iterdir()}
    assert {*base["resources"], "kustomization.yaml"} == files
    (image,) = base["images"]
    assert image["newTag"] == version("centra")


def test_every_selector_matches_the_pods(objects: dict[str, Object], pod: Object) -> None:
    labels = pod["metadata"]["labels"].items()
    selectors = [
        objects["Deployment"]["spec"]["selector"]["matchLabels"],
        objects["Service"]["spec"]["selector"],
        objects["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        objects["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
        *(
            constraint["labelSelector"]["matchLabels"]
            for constraint in pod["spec"]["topologySpreadConstraints"]
        ),
    ]
    for selector in selectors:
        assert selector
        assert selector.items() <= labels
    monitor = objects["ServiceMonitor"]["spec"]
    service = objects["Service"]
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert {one["port"] for one in monitor["endpoints"]} <= {
        port["name"] for port in service["spec"]["ports"]
    }
    target = objects["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
    deployment = objects["Deployment"]
    assert target == {
        "apiVersion": deployment["apiVersion"],
        "kind": "Deployment",
        "name": deployment["metadata"]["name"],
    }
    assert pod["spec"]["serviceAccountName"] == objects["ServiceAccount"]["metadata"]["name"]


def test_ports_are_those_that_the_server_listens_on(
    objects: dict[str, Object], container: Object
) -> None:
    command, *words = container["args"]
    given = serve_options(words)
    assert command == "serve"
    assert given["host"] == "0.0.0.0"
    ports = {port["name"]: str(port["containerPort"]) for port in container["ports"]}
    assert ports == {"http": given["port"], "grpc": given["grpc_port"]}
    asked = {port["targetPort"] for port in objects["Service"]["spec"]["ports"]}
    rules = objects["NetworkPolicy"]["spec"]["ingress"]
    allowed = {port["port"] for rule in rules for port in rule["ports"]}
    assert asked == allowed == ports.keys()
    for rule in rules:
        assert "from" in rule


def test_probes_ask_what_the_server_answers(objects: dict[str, Object], container: Object) -> None:
    probes = [container[f"{kind}Probe"] for kind in ("startup", "readiness", "liveness")]
    assert [probe["httpGet"]["path"] for probe in probes] == ["/readyz", "/readyz", "/livez"]
    (endpoint,) = objects["ServiceMonitor"]["spec"]["endpoints"]
    assert all(answers(probe["httpGet"]["path"]) for probe in probes)
    assert answers(endpoint["path"])
    assert not answers("/nope")
    assert {probe["httpGet"]["port"] for probe in probes} == {"http"}


def test_a_pod_ends_after_its_last_answer(pod: Object, container: Object) -> None:
    pause = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    # The last two seconds are those of bodies that are still on their way.
    drain = endpoint._FAREWELL + endpoint._DRAIN + 2
    assert pause + drain < pod["spec"]["terminationGracePeriodSeconds"] <= pause + drain + 15


def test_the_autoscaler_goes_by_a_metric_that_the_server_has(objects: dict[str, Object]) -> None:
    (metric,) = objects["HorizontalPodAutoscaler"]["spec"]["metrics"]
    name = metric["pods"]["metric"]["name"]
    (values,) = documents(FOLDER / "prometheus" / "adapter-values.yaml")
    (rule,) = values["rules"]["custom"]
    assert rule["name"] == {"matches": f"^{name}$", "as": name}
    assert rule["seriesQuery"].partition("{")[0] == name
    # Of what the adapter looks for, Prometheus adds the labels namespace and pod.
    assert {*rule["resources"]["overrides"]} == {"namespace", "pod"}
    standing = Standing(
        release=1,
        digest="",
        channel="production",
        revision=1,
        since=datetime.now(UTC),
        engine="onnx",
        modules={},
        versions={},
    )
    assert f"# TYPE {name} gauge" in Metrics().text([standing])[0].decode()


def test_variables_are_read_by_something(container: Object) -> None:
    assert {variable["name"] for variable in container["env"]} <= variables()


def test_it_has_no_rights_and_writes_to_the_volumes_of_the_image_alone(
    objects: dict[str, Object], pod: Object, container: Object
) -> None:
    image = read_stages(DEPLOY / "Dockerfile")[1]["serve"]
    user, group = map(int, image.last("USER").text.split(":"))
    context = pod["spec"]["securityContext"]
    assert (context["runAsUser"], context["runAsGroup"], context["fsGroup"]) == (user, group, group)
    assert context["runAsNonRoot"]
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert objects["ServiceAccount"]["automountServiceAccountToken"] is False
    assert pod["spec"]["automountServiceAccountToken"] is False
    written = {
        mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")
    }
    assert written == {*image.last("VOLUME").words}
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["spec"]["volumes"]}


def test_it_asks_for_as_much_as_servers_were_measured_to_take(container: Object) -> None:
    resources = container["resources"]
    # Of the release with 21 tasks, under load, with releases that came meanwhile.
    (measured,) = re.findall(
        r"MB before, (\d+) MB after", (ROOT / "benchmarks/SOAK.md").read_text()
    )
    wanted, limit = (gibibytes(resources[kind]["memory"]) for kind in ("requests", "limits"))
    assert int(measured) / 1000 < wanted
    assert limit == 2 * wanted
    # The server counts the processors of its limit, rounded up.
    assert resources["requests"]["cpu"] == resources["limits"]["cpu"] == "2"


def gibibytes(text: str) -> float:
    """A quantity such as ``2Gi``."""
    assert text.endswith("Gi")
    return float(text.removesuffix("Gi")) * 2**30 / 1e9


def test_secrets_that_are_referred_to_are_shown(
    objects: dict[str, Object], pod: Object, container: Object, secrets: dict[str, Object]
) -> None:
    keys = [
        variable["valueFrom"]["secretKeyRef"]
        for variable in container["env"]
        if "valueFrom" in variable
    ]
    (endpoint,) = objects["ServiceMonitor"]["spec"]["endpoints"]
    keys.append(endpoint["authorization"]["credentials"])
    for key in keys:
        assert key["key"] in secrets[key["name"]]
    named = {
        volume["secret"]["secretName"] for volume in pod["spec"]["volumes"] if "secret" in volume
    }
    assert named | {key["name"] for key in keys} == {*secrets}


def test_the_tokens_that_are_shown_are_read(
    secrets: dict[str, Object], container: Object, tmp_path: Path
) -> None:
    path = serve_options(container["args"][1:])["tokens_file"]
    (name,) = secrets["centra-tokens"]
    assert path == f"/etc/centra/tokens/{name}"
    (tmp_path / name).write_text(secrets["centra-tokens"][name])
    Tokens(tmp_path / name)


def test_the_signed_deployment_differs_by_its_keys_alone(pod: Object, container: Object) -> None:
    (patch,) = documents(FOLDER / "signed" / "deployment.patch.yaml")
    (kustomization,) = documents(FOLDER / "signed" / "kustomization.yaml")
    (generator,) = kustomization["configMapGenerator"]
    spec = patch["spec"]["template"]["spec"]
    (patched,) = spec["containers"]
    (mount,), (volume,) = patched["volumeMounts"], spec["volumes"]
    assert patched["name"] == container["name"]
    assert volume["configMap"]["name"] == generator["name"]
    assert patched["args"] == [
        *container["args"],
        *(f"--key={mount['mountPath']}/{file}" for file in generator["files"]),
    ]
    merged = yaml.safe_load(yaml.safe_dump(pod["spec"]))
    merged["containers"][0] |= {"args": patched["args"]}
    merged["containers"][0]["volumeMounts"] += patched["volumeMounts"]
    merged["volumes"] += spec["volumes"]
    check_kubernetes(
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "centra"}, "spec": merged}
    )
