"""The chart, rendered by Helm itself (its Go library, from ``helm-python-sdk``)."""

from __future__ import annotations

import json
import re
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.deploy.commands import serve_options, variables
from tests.deploy.schemas import check_kubernetes, documents
from tests.support import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

helm = pytest.importorskip("helm_python", reason="Helm is not installed: make setup")

DEPLOY = ROOT / "examples" / "deploy"
CHART = DEPLOY / "helm" / "centra"
Object = dict[str, Any]

VARIANTS: dict[str, Object] = {
    "several channels": {
        "channels": [
            {"name": "en", "store": "s3://models/english", "channel": "production"},
            {"name": "zh", "store": "s3://models/chinese", "channel": "production"},
        ]
    },
    "a fixed number": {"autoscaling": {"enabled": False}, "replicaCount": 5},
    "to the outside": {
        "ingress": {
            "enabled": True,
            "className": "nginx",
            "annotations": {"cert-manager.io/cluster-issuer": "letsencrypt"},
            "host": "models.example",
            "tlsSecret": "models-example-tls",
        },
        "service": {"type": "LoadBalancer", "annotations": {"a.example/b": "c"}},
    },
    "an S3 server of one's own, no tokens": {
        "tokens": {"existingSecret": ""},
        "s3": {"endpointUrl": "http://store:8333", "existingSecret": "keys", "region": ""},
        "networkPolicy": {"storePort": 8333},
    },
    "signed": {
        "signing": {"existingConfigMap": "keys", "keys": ["old.pub.pem", "new.pub.pem"]},
        "imagePullSecrets": [{"name": "pull"}],
        "serviceAccount": {"annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/r"}},
    },
    "a GPU": {
        "image": {"tag": "0.1.0-gpu"},
        "resources": {"limits": {"cpu": "4", "memory": "8Gi", "nvidia.com/gpu": 1}},
        "nodeSelector": {"accelerator": "l4"},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
        "podAnnotations": {"a.example/b": "c"},
        "extraArgs": ["--dtype=bf16"],
        "extraEnv": [{"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": "http://collector:4318"}],
        "affinity": {"nodeAffinity": {}},
    },
    "bare": {"podDisruptionBudget": {"enabled": False}, "networkPolicy": {"enabled": False}},
}


@pytest.fixture(scope="module")
def chart() -> Iterator[Any]:
    """The chart, as Helm reads it."""
    with helm.Chart.load(str(CHART)) as loaded:
        yield loaded


def render(chart: Any, values: Object, name: str = "centra") -> dict[str, Object]:
    """The objects that values make, by kind."""
    texts = chart.render(values, name=name, namespace="default")
    found = [yaml.safe_load(text) for path, text in texts.items() if path.endswith(".yaml")]
    return {one["kind"]: one for one in found if one}


def plain(one: Object) -> Object:
    """An object without what Helm alone adds, or what a kustomization changes."""
    text = json.dumps(one)
    for label in ("app.kubernetes.io/version", "app.kubernetes.io/managed-by", "helm.sh/chart"):
        text = re.sub(f'"{re.escape(label)}": "[^"]*",? ?', "", text)
    found: Object = json.loads(text.replace(", }", "}"))
    if found["kind"] == "Deployment":
        (container,) = found["spec"]["template"]["spec"]["containers"]
        container.pop("imagePullPolicy", None)
        container["image"] = container["image"].rpartition("/")[2].partition(":")[0]
    return found


def test_its_default_is_the_plain_manifests(chart: Any) -> None:
    (base,) = documents(DEPLOY / "kubernetes" / "base" / "kustomization.yaml")
    files = [DEPLOY / "kubernetes" / "base" / name for name in base["resources"]]
    expected = {one["kind"]: one for path in files for one in documents(path)}
    rendered = render(chart, {})
    assert {kind: plain(one) for kind, one in rendered.items()} == expected
    (image,) = base["images"]
    (container,) = rendered["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert container["image"] == f"{image['newName']}:{image['newTag']}"
    (monitor,) = documents(DEPLOY / "kubernetes" / "prometheus" / "servicemonitor.yaml")
    watched = render(chart, {"serviceMonitor": {"enabled": True}})
    assert plain(watched["ServiceMonitor"]) == monitor
    open_to_all = {"tokens": {"existingSecret": ""}, "serviceMonitor": {"enabled": True}}
    del monitor["spec"]["endpoints"][0]["authorization"]
    assert plain(render(chart, open_to_all)["ServiceMonitor"]) == monitor


@pytest.mark.parametrize("values", VARIANTS.values(), ids=VARIANTS.keys())
def test_what_it_makes_fits_the_schemas_and_one_another(chart: Any, values: Object) -> None:
    objects = render(chart, values, name="assistant")
    for one in objects.values():
        check_kubernetes(one)
        assert one["metadata"]["name"] == "assistant-centra"
    pod = objects["Deployment"]["spec"]["template"]
    labels = pod["metadata"]["labels"].items()
    assert objects["Deployment"]["spec"]["selector"]["matchLabels"].items() <= labels
    assert objects["Service"]["spec"]["selector"].items() <= labels
    (container,) = pod["spec"]["containers"]
    assert {variable["name"] for variable in container["env"]} <= variables()
    given = serve_options(container["args"][1:])
    channels = values.get("channels", [{"store": "s3://models/centra", "channel": "production"}])
    if len(channels) == 1:
        assert given["reference"] == "s3://models/centra#production"
    else:
        assert [*given["channels"]] == [
            f"{one['name']}={one['store']}#{one['channel']}" for one in channels
        ]
    mounts = {mount["name"] for mount in container["volumeMounts"]}
    assert mounts == {volume["name"] for volume in pod["spec"]["volumes"]}


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"chanels": []}, "additional properties 'chanels' not allowed"),
        ({"channels": []}, "minItems: got 0, want 1"),
        ({"channels": [{"store": "models", "channel": "production"}]}, "does not match pattern"),
        ({"channels": [{"store": "s3://a/b", "channel": "x"}] * 2}, "each has a name"),
        ({"signing": {"keys": ["release.pub.pem"]}}, "minLength"),
        ({"signing": {"existingConfigMap": "keys"}}, "maxLength"),
        ({"service": {"httpPort": 0}}, "minimum"),
        ({"resources": {"limits": {"cpu": "2", "memory": None}}}, "memory"),
    ],
)
def test_values_that_make_no_sense_are_refused(chart: Any, values: Object, why: str) -> None:
    with pytest.raises(helm.HelmError, match=why):
        render(chart, values)


def test_it_tells_how_to_go_on(chart: Any) -> None:
    def notes(values: Object) -> str:
        return str(chart.render(values, name="centra")["centra/templates/NOTES.txt"])

    assert "s3://models/centra#production" in notes({})
    assert "centra_queue_inputs" in notes({})
    bare = notes({"tokens": {"existingSecret": ""}, "autoscaling": {"enabled": False}})
    assert "whoever reaches a pod may call" in bare
    assert "centra_queue_inputs" not in bare


def test_helm_finds_nothing_wrong_with_it() -> None:
    found = helm.lint(str(CHART))
    # An icon is for a catalogue's pages.
    assert [one["error"] for one in found["messages"]] == ["icon is recommended"]


def test_its_schema_knows_every_value_and_its_templates_use_each() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert schema["properties"].keys() - {"global"} == values.keys()
    templates = "".join(path.read_text() for path in (CHART / "templates").iterdir())
    for name, value in values.items():
        assert f".Values.{name}" in templates
        known = schema["properties"][name].get("properties")
        if known is not None:
            assert known.keys() == value.keys()
        for part in value if known and name != "resources" else ():
            # Within a with, the first part of the name is left out.
            assert re.search(rf"\.{part}\b", templates), f"{name}.{part}"


def test_its_version_is_centras() -> None:
    described = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert described["appVersion"] == version("centra")
