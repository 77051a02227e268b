"""Bearer tokens: who may call, which tasks, how often."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from centra.errors import ConflictError, NotAllowedError, NotFoundError, UsageError
from centra.serving import tokens as tokens_module
from centra.serving.tokens import RateLimitedError, Tokens, UnauthorizedError, add_token
from tests.cli.helpers import centra, refused
from tests.serving.servers import ServedStore, Server, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import httpx


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where tokens are kept."""
    return tmp_path / "tokens.toml"


@pytest.fixture(scope="module")
def bearers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A file of tokens, and the header of each."""
    file = tmp_path_factory.mktemp("tokens") / "tokens.toml"
    made = {
        "all": add_token(file, "all"),
        "some": add_token(file, "some", tasks=["intent", "same"]),
        "slow": add_token(file, "slow", rate=0.01),
    }
    return file, {name: f"Bearer {token}" for name, token in made.items()}


@pytest.fixture(scope="module")
def guarded(served_store: ServedStore, bearers: tuple[Path, dict[str, str]]) -> Iterator[Server]:
    """A server that asks for tokens."""
    with running(served_store.source, "--tokens", bearers[0]) as server:
        yield server


def ask(server: Server, authorization: str | None, **body: Any) -> httpx.Response:
    headers = {} if authorization is None else {"Authorization": authorization}
    return server.client.post("/v1/predict", json={"inputs": ["snow"], **body}, headers=headers)


def test_a_file_holds_no_token(file: Path) -> None:
    token = add_token(file, "app")
    assert re.fullmatch(r"centra_[\w-]{43}", token)
    assert token not in file.read_text()
    assert Tokens(file).caller(f"bearer {token}").name == "app"


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic abc", "Bearer nope"])
def test_others_are_not_known(file: Path, header: str | None) -> None:
    add_token(file, "app")
    with pytest.raises(UnauthorizedError):
        Tokens(file).caller(header)


def test_a_digest_is_no_token(file: Path) -> None:
    add_token(file, "app")
    (digest,) = re.findall("[0-9a-f]{64}", file.read_text())
    with pytest.raises(UnauthorizedError):
        Tokens(file).caller(f"Bearer {digest}")


def test_changes_of_the_file_are_taken_in(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens_module, "_RECHECK", 0)
    first = add_token(file, "first")
    known = Tokens(file)
    second = add_token(file, "second")
    assert known.caller(f"Bearer {second}").name == "second"
    good = file.read_text()
    file.write_text("no tokens")
    assert known.caller(f"Bearer {first}").name == "first"
    file.write_text(good[good.index("[", 1) :])
    with pytest.raises(UnauthorizedError):
        known.caller(f"Bearer {first}")
    assert known.caller(f"Bearer {second}").name == "second"


def test_a_rate_counts_inputs(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(tokens_module.time, "monotonic", lambda: now)
    token = add_token(file, "app", rate=10)
    caller = Tokens(file).caller(f"Bearer {token}")
    for _ in range(10):
        caller.spend(1)
    with pytest.raises(RateLimitedError) as found:
        caller.spend(1)
    assert found.value.retry_after == pytest.approx(0.1)
    now += 1
    caller.spend(100)
    with pytest.raises(RateLimitedError) as found:
        caller.spend(1)
    assert 9 < found.value.retry_after < 11
    now += 11
    caller.spend(1)


def test_a_list_names_tasks(file: Path) -> None:
    token = add_token(file, "app", tasks=["intent"])
    caller = Tokens(file).caller(f"Bearer {token}")
    caller.check(["intent"])
    assert caller.allowed(["intent", "slots"]) == ["intent"]
    with pytest.raises(NotAllowedError) as found:
        caller.check(["intent", "slots"])
    assert found.value.data["task"] == "slots"


def test_a_list_names_channels(file: Path) -> None:
    token = add_token(file, "app", channels=["zh", "en"])
    caller = Tokens(file).caller(f"Bearer {token}")
    caller.check_channel("zh")
    # Where one release is served, there is none to choose.
    caller.check_channel("")
    assert caller.allowed_channels(["en", "fr"]) == ["en"]
    with pytest.raises(NotAllowedError, match="it may ask en, zh") as found:
        caller.check_channel("fr")
    assert found.value.data["channel"] == "fr"


def test_a_name_stands_once(file: Path) -> None:
    add_token(file, "an.app")
    with pytest.raises(ConflictError):
        add_token(file, "an.app")
    for name, options in (
        ("No Name", {}),
        ("b", {"tasks": ["?"]}),
        ("b", {"channels": ["?"]}),
        ("c", {"rate": 0}),
    ):
        with pytest.raises(UsageError):
            add_token(file, name, **options)
    assert Tokens(file)


@pytest.mark.parametrize(
    "text",
    [
        "not toml",
        "app = 1",
        "[app]",
        "[app]\nsha256 = 'short'",
        f"[app]\nsha256 = '{'0' * 64}'\ntask = 'intent'",
        f"[app]\nsha256 = '{'0' * 64}'\ntasks = 'intent'",
        f"[app]\nsha256 = '{'0' * 64}'\nchannels = 'en'",
        f"[app]\nsha256 = '{'0' * 64}'\nrate = true",
        f"[app]\nsha256 = '{'0' * 64}'\nrate = -1",
        f"[app]\nsha256 = '{'0' * 64}'\nrate = nan",
    ],
)
def test_a_malformed_file_is_refused(file: Path, text: str) -> None:
    file.write_text(text)
    with pytest.raises(UsageError, match=re.escape(str(file))):
        Tokens(file)


def test_a_missing_file_is_refused(file: Path) -> None:
    with pytest.raises(NotFoundError):
        Tokens(file)


def test_the_command_prints_a_token_once(file: Path) -> None:
    result = centra("token", "add", "app", file, "--task", "intent", "--rate", "2.5")
    caller = Tokens(file).caller(f"Bearer {result.stdout.strip()}")
    assert (caller.tasks, caller.rate) == ({"intent"}, 2.5)
    refused("token", "add", "app", file, code=5, says="a token 'app' already")


def test_no_answer_without_a_token(guarded: Server) -> None:
    for header in (None, "Bearer nope"):
        response = ask(guarded, header)
        assert (response.status_code, response.headers["www-authenticate"]) == (401, "Bearer")
        assert response.json()["code"] == "unauthorized"
    assert guarded.client.get("/v1/release").status_code == 401
    assert guarded.client.get("/metrics").status_code == 401
    for path in ("/livez", "/readyz", "/docs", "/openapi.json", "/v2/health/live"):
        assert guarded.client.get(path).status_code == 200, path


def test_a_token_has_its_tasks(guarded: Server, bearers: tuple[Path, dict[str, str]]) -> None:
    headers = bearers[1]
    (answer,) = ask(guarded, headers["all"]).json()["answers"]
    assert [*answer["tasks"]] == ["intent", "slots", "stars", "topics"]
    body = {"inputs": ["snow", {"text": "is it", "text_pair": "yes"}]}
    single, pair = ask(guarded, headers["some"], **body).json()["answers"]
    assert ([*single["tasks"]], [*pair["tasks"]]) == (["intent"], ["same"])
    response = ask(guarded, headers["some"], tasks=["intent", "slots"])
    assert response.status_code == 403
    assert (response.json()["code"], response.json()["field"]) == ("task-not-allowed", "tasks")
    some = {"Authorization": headers["some"]}
    assert [*guarded.client.get("/v1/release", headers=some).json()["tasks"]] == ["intent", "same"]
    response = guarded.client.post("/predict/slots", json={"inputs": "snow"}, headers=some)
    assert response.status_code in (403, 422)
    response = guarded.client.post("/predict/stars", json={"inputs": "snow"}, headers=some)
    assert response.status_code == 403


def test_a_token_has_its_rate(guarded: Server, bearers: tuple[Path, dict[str, str]]) -> None:
    assert ask(guarded, bearers[1]["slow"]).status_code == 200
    response = ask(guarded, bearers[1]["slow"])
    assert (response.status_code, response.json()["code"]) == (429, "rate-limited")
    assert int(response.headers["retry-after"]) > 50
