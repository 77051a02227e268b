"""What the name of a release stands for that ``centra serve`` is given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from centra.serving.ray.settings import Settings
from tests.cli.helpers import centra, read, refused

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, Any]]:
    """The sources of what would be served, and of its shadow."""
    found: list[tuple[Any, Any]] = []
    monkeypatch.setattr(
        "centra.serving.batcher.Batcher", lambda source, shadow, **_: found.append((source, shadow))
    )
    monkeypatch.setattr("centra.serving.server.serve", lambda make, _listener, tokens: make(None))
    return found


def test_names_lead_to_the_store(home: Path, served: list[tuple[Any, Any]]) -> None:
    centra("channel", "move", "production", "1")
    store, digest = home / ".centra" / "store", read("release", "show", "1")["digest"]
    names = {
        "production": f"{store}#production",
        "1": f"{store}#{digest}",
        digest[:8]: f"{store}#{digest}",
        digest: f"{store}#{digest}",
        "s3://bucket/prefix#staging": "s3://bucket/prefix#staging",
        ".": ".",
    }
    for name in names:
        centra("serve", name)
    centra("serve")
    assert [source for source, _ in served] == [*names.values(), str(store)]


def test_what_there_is_not_is_refused(home: Path, served: list[tuple[Any, Any]]) -> None:
    refused("serve", "99", code=3, says="99")
    refused("serve", "nope", code=3, says="nope")
    assert served == []


def test_a_channel_that_the_store_lacks_is_named_beside_those_that_it_has(
    home: Path, served: list[tuple[Any, Any]], tmp_path: Path
) -> None:
    store = tmp_path / "elsewhere"
    (store / "channels").mkdir(parents=True)
    says = f"{store}: there is no release here and no channel 'production'; there are no channels"
    refused("--store", str(store), "serve", "production", code=3, says=says)
    for name in ("staging", "canary"):
        (store / "channels" / f"{name}.json").write_text("{}")
    says = "no channel 'production'; there are canary, staging"
    refused("--store", str(store), "serve", "production", code=3, says=says)
    refused("--store", str(store), "serve", "--channel", "en=production", code=3, says=says)
    assert served == []


def test_no_registry_is_needed_but_for_a_name(served: list[tuple[Any, Any]]) -> None:
    refused("serve", code=3, says="no store is configured")
    refused("serve", "production", code=3, says="no store is configured")
    centra("--store", "s3://bucket/prefix", "serve")
    assert served == [("s3://bucket/prefix", None)]


def test_channels_have_names(home: Path, served: list[tuple[Any, Any]]) -> None:
    centra("channel", "move", "production", "1")
    centra("serve", "--channel", "en=production", "--channel", "zh=s3://bucket/zh#staging")
    store = home / ".centra" / "store"
    sources = {"en": f"{store}#production", "zh": "s3://bucket/zh#staging"}
    assert served == [(sources, None)]
    assert [*served[0][0]] == ["en", "zh"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--channel", "en"), "NAME=RELEASE"),
        (("--channel", "en="), "NAME=RELEASE"),
        (("--channel", "EN=a#b"), "'EN' is not a valid channel name"),
        (("--channel", "a/b=a#b"), "'a/b' is not a valid channel name"),
        (("--channel", "en=a#b", "--channel", "en=c#d"), "en is named twice"),
        (("a#b", "--channel", "en=a#b"), "--channel NAME=a#b"),
        (("--channel", "en=a#b", "--shadow", "staging"), "--shadow compares with one"),
    ],
)
def test_channels_that_are_not_clear_are_refused(
    served: list[tuple[Any, Any]], words: tuple[str, ...], says: str
) -> None:
    refused("serve", *words, code=2, says=says)
    assert served == []


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--replicas", "2"), "--replicas is for a cluster: give --engine ray, too"),
        (("--replica-port", "8081"), "--replica-port is for a cluster"),
        (("--engine", "ray", "--replicas", "2", "--max-replicas", "4"), "--replicas says how many"),
        (("--engine", "ray", "--min-replicas", "2"), "--min-replicas takes --max-replicas"),
        (
            ("--engine", "ray", "--min-replicas", "3", "--max-replicas", "2"),
            "--min-replicas is more than --max-replicas",
        ),
        (("--engine", "ray", "--port", "0"), "--port 0"),
        (("--engine", "ray", "--name", "für"), "'für' is not a valid application name"),
        (("--engine", "ray", "--name", "a#b"), "'a#b' is not a valid application name"),
        (("--engine", "ray", "--route-prefix", "centra"), "'centra' is not a valid route prefix"),
        (("--engine", "ray", "--route-prefix", "/centra/"), "'/centra/' is not a valid route"),
        (("--engine", "ray", "--route-prefix", "/{x}"), "'/{x}' is not a valid route prefix"),
        (("--engine", "ray", "--route-prefix", "/für"), "'/für' is not a valid route prefix"),
        (("--engine", "ray", "--grpc-port", "9001"), "--grpc-port takes --replica-port"),
    ],
)
def test_options_of_a_cluster_that_make_no_sense_are_refused(
    home: Path, words: tuple[str, ...], says: str
) -> None:
    pytest.importorskip("ray")
    centra("channel", "move", "production", "1")
    refused("serve", *words, code=2, says=says)


def test_a_cluster_is_told_where_things_are(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray")
    told: dict[str, Any] = {}
    monkeypatch.setattr(
        "centra.serving.ray.running.serve_on_ray",
        lambda args, proxy, **named: told.update(args, proxy=proxy, **named),
    )
    centra("channel", "move", "production", "1")
    key = tmp_path / "team.pub"
    key.write_text("")
    words = ("--max-replicas", "4", "--target-requests", "8", "--replica-gpus", "0.25")
    centra("serve", "--engine", "ray", "--key", str(key), *words)
    assert told["source"] == str(home / ".centra" / "store")
    assert told["keys"] == [key]
    assert told["autoscaling"] == {"max_replicas": 4, "target_ongoing_requests": 8}
    assert told["num_gpus"] == 0.25
    assert (told["name"], told["proxy"].port) == ("centra", None)
    Settings.of({name: told[name] for name in told.keys() & Settings.model_fields.keys()})


def test_a_cluster_is_told_its_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    told: dict[str, Any] = {}
    monkeypatch.setattr(
        "centra.serving.ray.running.serve_on_ray",
        lambda args, _proxy, **named: told.update(args, **named),
    )
    channels = {"en": "s3://models/en#production", "zh": "s3://models/zh#production"}
    words = [word for name, one in channels.items() for word in ("--channel", f"{name}={one}")]
    centra("serve", "--engine", "ray", *words)
    settings = Settings.of(
        {name: told[name] for name in told.keys() & Settings.model_fields.keys()}
    )
    assert settings.sources == channels
