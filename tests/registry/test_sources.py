"""Models that come from MLflow's registry, from the hub, and from a bucket."""

from __future__ import annotations

import hashlib
import json
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import huggingface_hub
import pytest

from centra.checkpoints.sources import fetched
from centra.errors import FormatError, NotFoundError, StoreError, UsageError
from registry import audit, cards, tasks
from tests.mlflow_server import mlflow_program
from tests.services import s3_client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from centra.formats.task_module import TaskModule
    from registry import Registry


@pytest.fixture
def module(make_module: Callable[..., TaskModule], tmp_path: Path) -> Path:
    """A task module's file, in a folder of its own."""
    path = tmp_path / "files" / "intent.safetensors"
    path.parent.mkdir()
    make_module().write(path)
    return path


def test_a_module_and_a_checkpoint_come_from_a_bucket(
    s3_url: str, module: Path, tmp_path: Path
) -> None:
    bucket, query = urlsplit(s3_url).netloc, urlsplit(s3_url).query
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json", "evil.py"):
        (checkpoint / name).write_text(name)
    client = s3_client(s3_url)
    for path in (module, *checkpoint.iterdir()):
        client.upload_file(str(path), bucket, f"models/{path.parent.name}/{path.name}")
    with fetched(f"s3://{bucket}/models/files/intent.safetensors?{query}") as found:
        assert found.path.read_bytes() == module.read_bytes()
        assert found.source == f"s3://{bucket}/models/files/intent.safetensors"
    assert not found.path.exists()
    with fetched(f"s3://{bucket}/models/files/?{query}") as found:
        assert found.path.read_bytes() == module.read_bytes()
    for address in ("models/checkpoint/", "models/checkpoint"):
        with fetched(f"s3://{bucket}/{address}?{query}") as found:
            names = {path.name for path in found.path.iterdir()}
        assert names == {"config.json", "model.safetensors", "tokenizer.json"}
    with (
        pytest.raises(NotFoundError, match="no files of a model"),
        fetched(f"s3://{bucket}/nothing/?{query}"),
    ):
        pass


def test_a_task_is_registered_and_updated_from_the_hub(
    registry: Registry,
    module: Path,
    make_module: Callable[..., TaskModule],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    put(module.with_name("evil.py"), "raise SystemExit")
    put(module.with_name("pytorch_model.bin"), "pickled")
    with hub({"v1": module.parent}) as commits:
        for name, value in (
            ("ENDPOINT", commits.address),
            ("HUGGINGFACE_CO_URL_TEMPLATE", commits.address + FILE),
            ("HF_HUB_CACHE", str(tmp_path / "cache")),
            ("HF_HUB_OFFLINE", False),
        ):
            monkeypatch.setattr(huggingface_hub.constants, name, value)
        made = tasks.register(registry, "intent", "hf://acme/intent@v1", team="nlu")
        assert str(made.version) == "1.0"
        module_file(make_module, module, seed=9)
        commits.revisions["main"] = module.parent
        updated = tasks.update(registry, "intent", "hf://acme/intent", force=True)
        assert str(updated.version) == "1.1"
        huggingface_hub.close_session()
    names = {path.name for path in (tmp_path / "cache").rglob("snapshots/*/*")}
    assert names == {"intent.safetensors"}
    tasks.update(registry, "intent", module_file(make_module, module, seed=10), force=True)
    sources = [cards.show(registry, f"intent@{number}").source for number in ("1.0", "1.1", "1.2")]
    assert sources == [
        f"hf://acme/intent@{commit('v1')}",
        f"hf://acme/intent@{commit('main')}",
        None,
    ]
    recorded = [event.details.get("source") for event in audit.events(registry)]
    assert [source for source in recorded if source in sources[:2]] == sources[:2]


FILE = "/{repo_id}/resolve/{revision}/{filename}"
"""Where the hub has a file."""


def commit(revision: str) -> str:
    """What a hub of the tests calls the commit that a revision stands for."""
    return hashlib.sha1(revision.encode(), usedforsecurity=False).hexdigest()


@dataclass
class Hub:
    """A hub with one model, ``acme/intent``."""

    revisions: dict[str, Path]
    """The folder of each."""
    address: str = ""


@contextmanager
def hub(revisions: dict[str, Path]) -> Iterator[Hub]:
    """As much of the hub's protocol as its own client asks for."""
    found = Hub(revisions)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            folders = {commit(name): folder for name, folder in found.revisions.items()}
            match path.split("/"):
                case ["", "api", "models", "acme", "intent", "revision", name]:
                    self.reply(json.dumps({"id": "acme/intent", "sha": commit(name)}).encode())
                case ["", "api", "models", "acme", "intent", "tree", sha]:
                    files = [
                        {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": "0"}
                        for file in folders[sha].iterdir()
                    ]
                    self.reply(json.dumps(files).encode())
                case ["", "acme", "intent", "resolve", sha, name]:
                    data = (folders[sha] / name).read_bytes()
                    tag = hashlib.sha256(data).hexdigest()
                    self.reply(data, ("X-Repo-Commit", sha), ("ETag", f'"{tag}"'))
                case _:
                    self.send_error(404)

        do_HEAD = do_GET  # noqa: N815 - the names that http.server looks for

        def reply(self, data: bytes, *headers: tuple[str, str]) -> None:
            self.send_response(200)
            for header in (*headers, ("Content-Length", str(len(data)))):
                self.send_header(*header)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found.address = f"http://127.0.0.1:{server.server_address[1]}"
        Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
        yield found
        server.shutdown()


def module_file(make_module: Callable[..., TaskModule], path: Path, *, seed: int) -> Path:
    """Another module in a file's place."""
    make_module(seed=seed).write(path)
    return path


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ("RevisionNotFoundError", FormatError),
        ("RepositoryNotFoundError", NotFoundError),
        ("LocalEntryNotFoundError", StoreError),
    ],
)
def test_what_the_hub_does_not_give_is_told(
    error: str, expected: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    import httpx

    kind = getattr(huggingface_hub.errors, error)

    def fail(*_: object, **__: object) -> None:
        http = issubclass(kind, huggingface_hub.errors.HfHubHTTPError)
        request = httpx.Request("GET", "http://hub")
        raise (
            kind("not there", response=httpx.Response(404, request=request))
            if http
            else kind("not there")
        )

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(expected, match="hf://acme/intent"), fetched("hf://acme/intent"):
        pass


@pytest.mark.parametrize(
    "source",
    [
        *("models:/", "models:/a/1/2", "models:/a/Production", "models:/a@b@c", "models:/a"),
        *("hf://acme", "hf://a/b/c", "https://host/model"),
    ],
)
def test_addresses_that_are_none(source: str) -> None:
    with pytest.raises(UsageError, match="expected"), fetched(source):
        pass


def test_what_mlflow_keeps_apart_is_put_together(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its transformers flavour has weights and tokenizer in two folders."""
    artifacts = pytest.importorskip("mlflow.artifacts")
    saved = tmp_path / "saved"
    for name in ("model/config.json", "model/model.safetensors"):
        put(saved / name, name)
    put(
        saved / "MLmodel", "artifact_path: x\nflavors:\n  sklearn:\n    code: null\nmodel_size: 1\n"
    )
    put(saved / "components/tokenizer/tokenizer.json", "tokenizer")
    put(saved / "components/tokenizer/run.py", "evil")

    def download(*, artifact_uri: str, dst_path: str) -> str:
        assert artifact_uri == "models:/intent/3"
        shutil.copytree(saved, dst_path, dirs_exist_ok=True)
        return dst_path

    monkeypatch.setattr(artifacts, "download_artifacts", download)
    with fetched("models:/intent/3") as found:
        names = {path.name for path in found.path.iterdir()}
    assert names == {"config.json", "model.safetensors", "tokenizer.json"}
    put(saved / "other/config.json", "{}")
    with (
        pytest.raises(FormatError, match=r"models:/intent/3: expected one .* found model, other"),
        fetched("models:/intent/3"),
    ):
        pass
    for name in ("model", "other"):
        shutil.rmtree(saved / name)
    with (
        pytest.raises(
            FormatError, match=r"flavours sklearn; found MLmodel, components/"
        ) as refused,
        fetched("models:/intent/3"),
    ):
        pass
    assert refused.value.code == "no-model-inside"


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize("databases", ["sqlite"], indirect=True)
def test_a_task_is_registered_from_mlflows_registry(
    registry: Registry,
    module: Path,
    make_module: Callable[..., TaskModule],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mlflow = pytest.importorskip("mlflow")
    (tmp_path / "server").mkdir()
    with mlflow_program(
        tmp_path / "server",
        *("server", "--backend-store-uri", f"sqlite:///{tmp_path}/server/mlflow.db"),
        *("--artifacts-destination", str(tmp_path / "server" / "artifacts"), "--workers", "1"),
        health="/health",
    ) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
        monkeypatch.setenv("MLFLOW_REGISTRY_URI", server)
        client = mlflow.MlflowClient()
        client.create_registered_model("intent")
        log_model(mlflow, module)
        made = tasks.register(registry, "intent", "models:/intent/1", team="nlu")
        assert str(made.version) == "1.0"
        log_model(mlflow, module_file(make_module, module, seed=9))
        client.set_registered_model_alias("intent", "champion", "2")
        updated = tasks.update(registry, "intent", "models:/intent@champion", force=True)
        assert str(updated.version) == "1.1"
        assert cards.show(registry, "intent").source == "models:/intent/2"
        for missing in ("models:/intent/7", "models:/intent@nobody", "models:/other/1"):
            with pytest.raises(NotFoundError, match=missing), fetched(missing):
                pass


def test_a_registry_that_is_not_there_is_told_without_its_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("mlflow")
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
        monkeypatch.setenv(name, "http://ada:s3cret@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with (
        pytest.raises(StoreError, match="models:/intent/1: ") as refused,
        fetched("models:/intent/1"),
    ):
        pass
    assert "s3cret" not in f"{refused.value} {refused.value.data}"


def log_model(mlflow: Any, module: Path) -> None:
    """What a team does that keeps a module as an artifact of a run, and registers it."""
    with mlflow.start_run() as run:
        mlflow.log_artifact(str(module), "model")
    mlflow.MlflowClient().create_model_version(
        "intent", f"runs:/{run.info.run_id}/model", run.info.run_id
    )
