"""Releases in a real OCI registry: pushed, pulled, loaded; what moves is what changed."""

from __future__ import annotations

import base64
import hashlib
import json
import pickle
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from centra.errors import (
    CorruptBlobError,
    FormatError,
    NotAllowedError,
    NotFoundError,
    StoreError,
    StoreUnreachableError,
    UsageError,
)
from centra.formats.documents import sha256
from centra.releases.artifact_reading import OciReader
from centra.releases.artifact_writing import push, write_layout
from centra.releases.find import find_release
from centra.releases.folder import ReleaseFolder
from centra.releases.folder_writing import listing, write_folder
from centra.runtime import load_release
from centra.store import LocalStore
from centra.store.oci import OciAddress, OciRepository
from tests import support
from tests.registries import (
    Asked,
    FakeRegistry,
    OciRequest,
    OciServer,
    fake_registry,
    oci_server,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from centra.formats.manifest import ReleaseManifest
    from centra.formats.task_module import TaskModule

TEXT = "wake me at seven"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OciServer]:
    with oci_server(tmp_path_factory.mktemp("registry")) as server:
        yield server


@pytest.fixture(autouse=True)
def nobody_logged_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of logins, and an empty cache."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.setenv("CENTRA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "docker"


@pytest.fixture
def modules(make_module: Callable[..., TaskModule]) -> dict[str, TaskModule]:
    return {"intent": make_module(), "slots": make_module("tagging", tap=1)}


@pytest.fixture
def release(backbone_store: LocalStore, modules: dict[str, TaskModule], tiny_backbone):
    return support.put_release(modules, [tiny_backbone.spec], backbone_store)


def address(registry: OciServer, name: str, tag: str = "1") -> str:
    return f"oci://{registry.host}/teams/{name}:{tag}"


def uploads(requests: list[OciRequest]) -> set[str]:
    """The digests of the blobs that were sent."""
    found = (re.search(r"digest=sha256(?::|%3A)([0-9a-f]{64})", each.path) for each in requests)
    return {match[1] for match in found if match}


def downloads(requests: list[OciRequest]) -> dict[str, int]:
    """Bytes of each blob that was fetched."""
    return {
        each.path.rpartition(":")[2]: each.given
        for each in requests
        if each.method == "GET" and "/blobs/" in each.path
    }


def test_a_pushed_release_answers_as_before(
    registry: OciServer, release: ReleaseManifest, backbone_store: LocalStore, tmp_path: Path
) -> None:
    url = address(registry, "same")
    pushed = push(release, backbone_store, url, release=7, versions={"intent": "2.1"})
    found = find_release(url)
    assert found.digest == release.digest
    assert (found.release, dict(found.versions)) == (7, {"intent": "2.1"})
    assert find_release(pushed.address).digest == release.digest
    with load_release(url, engine="onnx") as there:
        answers = there.predict(TEXT)
        for task in there.tasks:
            here, recorded = there.probe_logits(task)
            assert abs(here - recorded).max() < 1e-4
    write_folder(release, backbone_store, tmp_path / "folder")
    with load_release(tmp_path / "folder", engine="onnx") as here:
        assert here.predict(TEXT) == answers


def test_the_layout_is_modelpacks(
    registry: OciServer, release: ReleaseManifest, backbone_store: LocalStore
) -> None:
    pushed = push(release, backbone_store, address(registry, "layout"))
    manifest = registry.get(f"teams/layout/manifests/sha256:{pushed.digest}")
    assert manifest["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    assert manifest["artifactType"] == "application/vnd.cncf.model.manifest.v1+json"
    layers = {
        layer["annotations"]["org.cncf.model.filepath"]: layer for layer in manifest["layers"]
    }
    assert layers.keys() == listing(release, backbone_store).keys()
    for path, digest in release.files().items():
        assert layers[path]["digest"] == f"sha256:{digest}"
        kind = "weight" if path.endswith(".safetensors") else "weight.config"
        assert layers[path]["mediaType"] == f"application/vnd.cncf.model.{kind}.v1.raw"
    config = registry.get(f"teams/layout/blobs/{manifest['config']['digest']}")
    assert config["modelfs"] == {
        "type": "layers",
        "diffIds": [layer["digest"] for layer in manifest["layers"]],
    }
    assert config["config"]["format"] == "safetensors"


def test_the_same_release_is_the_same_artifact_and_is_sent_once(
    registry: OciServer, release: ReleaseManifest, backbone_store: LocalStore
) -> None:
    first = push(release, backbone_store, address(registry, "once"))
    again = push(release, backbone_store, address(registry, "once", "another"))
    assert again.digest == first.digest
    assert first.sent
    assert not again.sent


def test_a_new_release_moves_the_changed_module_alone(
    registry: OciServer,
    release: ReleaseManifest,
    modules: dict[str, TaskModule],
    make_module: Callable[..., TaskModule],
    backbone_store: LocalStore,
    tiny_backbone: support.Backbone,
) -> None:
    push(release, backbone_store, address(registry, "moves"))
    load_release(address(registry, "moves"), engine="onnx").close()
    changed = support.put_release(
        {**modules, "intent": make_module(seed=7)}, [tiny_backbone.spec], backbone_store
    )
    module = changed.tasks["intent"].digest
    before = len(registry.requests())
    pushed = push(changed, backbone_store, address(registry, "moves", "2"))
    assert set(pushed.sent) == {"tasks/intent.safetensors", "release.json", "SHA256SUMS"}
    blobs = {*release.files().values(), *changed.files().values()}
    assert uploads(registry.requests()[before:]) & blobs == {module}
    before = len(registry.requests())
    load_release(address(registry, "moves", "2"), engine="onnx").close()
    asked = registry.requests()[before:]
    size = backbone_store.path(module).stat().st_size
    fetched = downloads(asked)
    assert fetched.keys() == {module, changed.digest}
    assert fetched[module] == size
    assert sum(each.given for each in asked) < size + 10_000  # Two manifests beside the module.


def test_what_a_killed_push_sent_is_not_sent_again(
    registry: OciServer,
    release: ReleaseManifest,
    backbone_store: LocalStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = address(registry, "killed")
    files = {**release.files(), **listing(release, backbone_store)}
    sent: list[str] = []
    upload = OciRepository.upload

    def killed(self: OciRepository, digest: str, source: Path | bytes) -> None:
        if len(sent) == 3:
            raise KeyboardInterrupt
        upload(self, digest, source)
        sent.append(digest)

    monkeypatch.setattr(OciRepository, "upload", killed)
    with pytest.raises(KeyboardInterrupt):
        push(release, backbone_store, url)
    with pytest.raises(NotFoundError) as none:
        find_release(url)
    assert none.value.code == "no-artifact"
    monkeypatch.undo()
    monkeypatch.setenv("DOCKER_CONFIG", "/none")
    again = push(release, backbone_store, url)
    assert not {files[path] for path in again.sent} & set(sent)


def test_a_damaged_layer_is_refused(release: ReleaseManifest, backbone_store: LocalStore) -> None:
    module = release.tasks["slots"].digest
    with (
        registry_with_tokens(release, backbone_store, damaged=module) as registry,
        pytest.raises(CorruptBlobError, match=module),
    ):
        load_release(f"oci://{registry.host}/teams/a:1")


def test_an_artifact_of_another_kind_is_named(registry: OciServer) -> None:
    url = address(registry, "image")
    repository = OciRepository(OciAddress.parse(url))
    repository.upload(sha256(b"{}"), b"{}")
    blob = {"digest": f"sha256:{sha256(b'{}')}", "size": 2}
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", **blob},
        "layers": [],
    }
    data = json.dumps(manifest).encode()
    repository.write_manifest("1", manifest["mediaType"], data)
    with pytest.raises(FormatError, match=r"oci\.image\.config") as refused:
        find_release(url)
    assert refused.value.code == "another-artifact"


def test_a_login_of_docker_is_used(
    tmp_path: Path,
    nobody_logged_in: Path,
    release: ReleaseManifest,
    backbone_store: LocalStore,
) -> None:
    # The password is "secret"; bcrypt at its least cost.
    users = "ada:$2b$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW\n"
    with oci_server(tmp_path, users=users) as registry:
        url = address(registry, "mine")
        with pytest.raises(NotAllowedError, match="not logged in") as refused:
            push(release, backbone_store, url)
        assert refused.value.data["host"] == registry.host
        log_in(nobody_logged_in, registry.host, "ada", "wrong")
        with pytest.raises(NotAllowedError, match="this login"):
            push(release, backbone_store, url)
        log_in(nobody_logged_in, registry.host, "ada", "secret")
        push(release, backbone_store, url)
        assert find_release(url).digest == release.digest


def log_in(folder: Path, host: str, user: str, password: str) -> None:
    """What ``docker login`` writes."""
    folder.mkdir(exist_ok=True)
    auth = base64.b64encode(f"{user}:{password}".encode()).decode()
    (folder / "config.json").write_text(json.dumps({"auths": {host: {"auth": auth}}}))


def test_a_helper_of_docker_is_asked(
    tmp_path: Path, nobody_logged_in: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from centra.store.oci.credentials import find_login

    programs = tmp_path / "bin"
    programs.mkdir()
    helper = programs / "docker-credential-tests"
    helper.write_text(
        "#!/bin/sh\nread -r host\n"
        '[ "$host" = registry.example.com ] || exit 1\n'
        'echo \'{"Username": "ada", "Secret": "s3"}\'\n'
    )
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    nobody_logged_in.mkdir()
    config = nobody_logged_in / "config.json"
    config.write_text('{"credsStore": "tests"}')
    found = find_login(("registry.example.com",))
    assert found is not None
    assert (found.user, found.secret) == ("ada", "s3")
    assert find_login(("another.example.com",)) is None
    config.write_text('{"credHelpers": {"registry.example.com": "../../bin/sh"}}')
    with pytest.raises(StoreError, match="no name of a helper"):
        find_login(("registry.example.com",))


def test_a_token_is_got_for_a_registry_that_asks_for_one(
    nobody_logged_in: Path, release: ReleaseManifest, backbone_store: LocalStore
) -> None:
    """As Docker Hub, GitHub and Harbor do: one server gives tokens, the other takes them."""
    with registry_with_tokens(release, backbone_store) as registry:
        log_in(nobody_logged_in, registry.host, "ada", "secret")
        with load_release(f"oci://{registry.host}/teams/a:1", engine="onnx") as there:
            assert there.predict(TEXT)
    asked = [one.options for one in registry.asked if one.place == "/token"]
    assert asked == [{"service": ["tests"], "scope": ["repository:teams/a:pull"]}]


@contextmanager
def registry_with_tokens(
    release: ReleaseManifest, store: LocalStore, damaged: str | None = None
) -> Iterator[FakeRegistry]:
    """A registry that wants tokens, and breaks off each blob once in its middle."""
    broken: set[str] = set()

    def answer(asked: Asked) -> bool:
        if asked.place == "/token":
            good = base64.b64encode(b"ada:secret").decode()
            assert asked.authorization in (f"Basic {good}", None)
            return asked.reply(200, b'{"token": "t1"}')
        if asked.authorization != "Bearer t1":
            return asked.reply(401, b"{}", WWW_Authenticate=challenge(asked.headers["Host"]))
        digest = asked.place.rpartition(":")[2]
        if "/blobs/" not in asked.place or digest in broken:
            return False
        broken.add(digest)
        return asked.break_off(registry.blobs[digest])

    with fake_registry(answer) as registry:
        put(release, store, registry)
        if damaged:
            data = registry.blobs[damaged]
            registry.blobs[damaged] = data[:-1] + bytes([data[-1] ^ 1])
        yield registry


def challenge(host: str, actions: str = "pull") -> str:
    """How a registry asks for a token."""
    return (
        f'Bearer realm="http://{host}/token",service="tests",scope="repository:teams/a:{actions}"'
    )


def put(release: ReleaseManifest, store: LocalStore, registry: FakeRegistry) -> None:
    """Let a registry hold a release, as ``teams/a:1``."""
    answer, registry.answer = registry.answer, lambda _: False
    push(release, store, f"oci://{registry.host}/teams/a:1")
    registry.answer = answer
    registry.asked.clear()


def test_signatures_travel_along(
    registry: OciServer, release: ReleaseManifest, backbone_store: LocalStore, tmp_path: Path
) -> None:
    backbone_store.write_signature(release.digest, b'{"a": 1}')
    backbone_store.write_signature(release.digest, b'{"b": 2}')
    url = address(registry, "signed")
    push(release, backbone_store, url)
    reader = OciReader(url)
    assert reader.signatures(release.digest) == backbone_store.signatures(release.digest)
    assert reader.signatures("0" * 64) == []
    write_folder(reader.manifest, reader, tmp_path / "pulled")
    pulled = ReleaseFolder.open(tmp_path / "pulled")
    assert pulled.signatures(release.digest) == backbone_store.signatures(release.digest)


def test_a_reader_can_be_sent_to_other_processes(
    registry: OciServer, release: ReleaseManifest, backbone_store: LocalStore
) -> None:
    push(release, backbone_store, address(registry, "sent"))
    there = pickle.loads(pickle.dumps(OciReader(address(registry, "sent"))))
    assert there.fetch(release.tasks["intent"].digest).is_file()


def test_a_folder_in_ocis_layout_is_a_release(
    release: ReleaseManifest, backbone_store: LocalStore, tmp_path: Path
) -> None:
    folder = tmp_path / "layout"
    folder.mkdir()
    digest = write_layout(release, backbone_store, folder, release=3)
    for blob in (folder / "blobs" / "sha256").iterdir():
        assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name
    assert json.loads((folder / "index.json").read_bytes())["manifests"][0]["digest"][7:] == digest
    found = find_release(folder)
    assert (found.digest, found.release) == (release.digest, 3)
    assert find_release(f"{folder}#latest").digest == release.digest
    with pytest.raises(NotFoundError, match="there are: latest"):
        find_release(f"{folder}#production")
    module = folder / "blobs" / "sha256" / release.tasks["slots"].digest
    support.flip(module, 8 * 100)
    with pytest.raises(CorruptBlobError, match="export the release again"):
        load_release(folder)
    (folder / "index.json").write_text("[]")
    with pytest.raises(FormatError, match="no index"):
        find_release(folder)


@pytest.mark.parametrize(
    ("text", "host", "repository", "reference", "api"),
    [
        ("ghcr.io/acme/nlu:1.2", "ghcr.io", "acme/nlu", "1.2", "https://ghcr.io/v2/acme/nlu"),
        ("localhost:5000/nlu", "localhost:5000", "nlu", "latest", "http://localhost:5000/v2/nlu"),
        (
            f"r.example/a@sha256:{'a' * 64}",
            "r.example",
            "a",
            f"sha256:{'a' * 64}",
            "https://r.example/v2/a",
        ),
        ("docker.io/nlu:1", "docker.io", "nlu", "1", "https://registry-1.docker.io/v2/library/nlu"),
        ("r.lan:80/a?plain_http=true", "r.lan:80", "a", "latest", "http://r.lan:80/v2/a"),
        ("[::1]:5000/a:b", "[::1]:5000", "a", "b", "http://[::1]:5000/v2/a"),
    ],
)
def test_addresses(text: str, host: str, repository: str, reference: str, api: str) -> None:
    found = OciAddress.parse(f"oci://{text}")
    assert (found.host, found.repository) == (host, repository)
    assert (found.reference, found.api) == (reference, api)


@pytest.mark.parametrize(
    "text", ["host", "host/", "/a", "h/A", "h/a:", "h/a@sha256:12", "h/../a", "h/a?x=1", "u:p@h/a"]
)
def test_addresses_that_are_none(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        OciAddress.parse(f"oci://{text}")
    assert refused.value.code == "oci-address"


def test_a_channel_of_an_artifact_is_refused() -> None:
    with pytest.raises(UsageError, match="no channels"):
        find_release("oci://r.example/a#production")


def test_nobody_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("centra.store.oci.transport._ATTEMPTS", 1)
    with pytest.raises(StoreUnreachableError, match="cannot be reached"):
        find_release("oci://127.0.0.1:9/a:1")
