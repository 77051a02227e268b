"""The Compose file, the secrets that it mounts, and the registry's job."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from centra.serving.tokens import Tokens
from centra.store.s3.address import S3Address
from tests.deploy.commands import serve_options, variables
from tests.deploy.dockerfile import read_stages
from tests.deploy.schemas import documents
from tests.support import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

DEPLOY = ROOT / "examples" / "deploy"
OURS = ("registry", "server-1", "server-2")
Object = dict[str, Any]


@pytest.fixture(scope="module")
def composed() -> Object:
    """The file, with what its services share written out in each."""
    found: Object = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return found


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the script makes."""
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("deploy")
    shutil.copy(DEPLOY / "secrets.sh", folder)
    for _ in range(2):  # What is there stays.
        before = {path.name: path.read_text() for path in folder.glob("secrets/*")}
        subprocess.run(["sh", folder / "secrets.sh"], check=True, capture_output=True)
        made = {path.name: path.read_text() for path in folder.glob("secrets/*")}
        assert before.items() <= made.items()
    return folder / "secrets"


def test_it_fits_the_compose_specification(composed: Object) -> None:
    compose_spec = pytest.importorskip("compose_spec", reason="no schema of Compose: make setup")
    read = compose_spec.PyCompose.from_json(json.dumps(composed))
    assert {*read.services} == {"database", "store", *OURS}
    composed["services"]["store"]["imagee"] = "nonsense"
    with pytest.raises(ValueError, match="imagee"):
        compose_spec.PyCompose.from_json(json.dumps(composed))
    del composed["services"]["store"]["imagee"]


def test_images_have_a_tag_and_are_built_here_where_they_are_ours(composed: Object) -> None:
    stages = read_stages(DEPLOY / "Dockerfile")[1]
    for name, service in composed["services"].items():
        image, _, tag = service["image"].rpartition(":")
        assert image
        if name in OURS:
            assert tag == version("centra")
            assert service["build"]["target"] in stages
            assert (DEPLOY / service["build"]["context"]).resolve() == ROOT
            assert (ROOT / service["build"]["dockerfile"]).exists()
        else:
            assert re.match(r"\d+", tag)
    assert composed["services"]["registry"]["build"]["target"] == "registry"


def test_two_servers_follow_production_and_differ_by_port_and_cache_alone(composed: Object) -> None:
    one, two = (composed["services"][name] for name in ("server-1", "server-2"))
    apart = {"ports", "volumes"}
    assert {key for key in one if one[key] != two[key]} == apart
    assert not {*one["ports"]} & {*two["ports"]}
    command, *words = one["command"]
    given = serve_options(words)
    assert (command, given["reference"]) == ("serve", "s3://models/centra#production")
    for service in (one, two):
        targets = [port.rpartition(":")[2] for port in service["ports"]]
        assert targets == [given["port"], given["grpc_port"]]
        # Nobody but this machine calls.
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert given["tokens_file"] == "/run/secrets/tokens.toml"


def test_a_server_has_no_rights_and_writes_to_the_volumes_of_the_image_alone(
    composed: Object,
) -> None:
    service = composed["services"]["server-1"]
    image = read_stages(DEPLOY / "Dockerfile")[1]["serve"]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    volumes = [volume.rpartition(":")[2] for volume in service["volumes"]]
    assert {*service["tmpfs"], *volumes} == {*image.last("VOLUME").words}
    (deployment,) = documents(DEPLOY / "kubernetes" / "base" / "deployment.yaml")
    pod = deployment["spec"]["template"]["spec"]
    assert service["stop_grace_period"] == f"{pod['terminationGracePeriodSeconds']}s"
    limits = pod["containers"][0]["resources"]["limits"]
    assert service["cpus"] == float(limits["cpu"])
    assert f"{service['mem_limit'].upper()}i" == limits["memory"]


def test_whoever_is_waited_for_can_be_asked(composed: Object) -> None:
    services = composed["services"]
    for service in services.values():
        for name, how in service.get("depends_on", {}).items():
            if how["condition"] == "service_healthy":
                assert services[name]["healthcheck"]["test"][0] == "CMD"
            else:
                assert how["condition"] == "service_completed_successfully"
                assert services[name]["restart"] == "no"
    volumes = {
        volume.partition(":")[0] for service in services.values() for volume in service["volumes"]
    }
    assert {volume for volume in volumes if not volume.startswith(".")} == {*composed["volumes"]}
    assert all((DEPLOY / volume).exists() for volume in volumes if volume.startswith("."))


def test_variables_are_read_by_something_and_hold_no_secret(composed: Object) -> None:
    for name in OURS:
        environment = composed["services"][name]["environment"]
        assert environment.keys() <= variables()
        assert not [key for key in environment if re.search("SECRET_ACCESS|PASSWORD", key)]


def test_every_secret_is_mounted_made_and_of_use(composed: Object, secrets: Path) -> None:
    services = composed["services"]
    mounted = {name for service in services.values() for name in service.get("secrets", ())}
    assert mounted == composed["secrets"].keys()
    files = {DEPLOY / one["file"] for one in composed["secrets"].values()}
    assert {path.name for path in files} == {path.name for path in secrets.iterdir()} - {"token"}
    assert {path.parent for path in files} == {DEPLOY / "secrets"}
    for service in services.values():
        for path in re.findall(r"/run/secrets/([\w.-]+)", json.dumps(service)):
            assert path in service["secrets"]


def test_secrets_are_behind_a_closed_door_and_tokens_are_read(secrets: Path) -> None:
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o700
    # Mounted one by one, they are read by the containers' users.
    assert {stat.S_IMODE(path.stat().st_mode) for path in secrets.iterdir()} == {0o644}
    token = (secrets / "token").read_text()
    assert Tokens(secrets / "tokens.toml").caller(f"Bearer {token}").name == "demo"
    ignored = (ROOT / ".gitignore").read_text().split()
    assert "examples/deploy/secrets/" in ignored


def test_servers_may_read_the_bucket_and_nothing_else(secrets: Path) -> None:
    accounts = json.loads((secrets / "s3-accounts.json").read_text())["identities"]
    actions = {account["name"]: account["actions"] for account in accounts}
    assert actions == {"registry": ["Admin"], "server": ["Read:models", "List:models"]}
    for account in accounts:
        (keys,) = account["credentials"]
        profile = (secrets / f"s3-{account['name']}").read_text()
        assert f"aws_access_key_id = {keys['accessKey']}\n" in profile
        assert f"aws_secret_access_key = {keys['secretKey']}\n" in profile


@pytest.fixture
def job(
    postgres_database: str, s3_url: str, secrets: Path, tmp_path: Path
) -> Iterator[dict[str, str]]:
    """The variables of the registry's job, on a database and a bucket of the tests' own."""
    address = S3Address.parse(s3_url)
    assert address.endpoint_url
    yield {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "CENTRA_DATABASE_URL": postgres_database,
        "CENTRA_STORE": f"s3://{address.bucket}/{address.prefix}",
        "AWS_ENDPOINT_URL_S3": address.endpoint_url,
        "CENTRA_ACTOR": "nlu/demo",
        "CENTRA_CACHE": str(tmp_path / "cache"),
        "SECRETS": str(secrets),
        "CORPUS": str(ROOT / "examples" / "assistant"),
        "EPOCHS": "1",
    }


@pytest.mark.skipif(
    "IMAGE_CHECK" not in os.environ, reason="trains for half a minute: make image-check"
)
def test_the_registrys_job_releases_and_does_nothing_more(
    job: dict[str, str], tmp_path: Path
) -> None:
    def run(*words: str) -> str:
        done = subprocess.run(
            ["sh", DEPLOY / "demo-release.sh", *words],
            cwd=tmp_path,
            env=job,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    assert "production → release 1" in run()
    assert "production serves a release already" in run()
    assert {task["task"] for task in json.loads(run("task", "list", "--json"))} == {
        "intent",
        "emotion",
    }
