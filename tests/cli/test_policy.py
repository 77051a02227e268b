"""``centra policy``: applying what centra.toml says, and showing what is in force."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING

import pytest

from tests import support
from tests.cli.helpers import centra, demand, read, read_repeated, refused, state

if TYPE_CHECKING:
    from pathlib import Path

RULES = """
[compose]
allow_two_backbones = true

[channels.staging]

[channels."canary.eu"]
overwrite = true

[channels.production]
from = "staging"
promoters = ["nlu", "care/Eve \\"E\\" L"]
max_overhead = 0.4
max_size = "2 GB"

[channels.production.max_drop."*"]
accuracy = 1e-05
"""


def test_it_is_applied_once_shown_and_applied_again(home: Path) -> None:
    before = state(home)
    refused("policy", "show", code=3, says="no policy was ever applied")
    assert centra("policy", "history").stdout.split() == ["VERSION", "APPLIED", "BY", "CHANGES"]
    (home / "centra.toml").write_text((home / "centra.toml").read_text() + RULES)
    plan = centra("policy", "apply", "--dry-run")
    assert "channels.production.max_overhead: not set → 0.4\n" in plan.stdout
    assert "channels.staging: not set → a table\n" in plan.stdout
    assert plan.stderr == "nothing was changed\n"
    assert state(home)["rows"] == before["rows"]

    first, again = read_repeated("policy", "apply")
    assert (first["version"], first["changed"]) == (1, True)
    assert (again["version"], again["changed"], again["changes"]) == (1, False, [])
    assert centra("policy", "apply").stderr == ("nothing to do: these rules are in force already\n")
    shown = centra("policy", "show").stdout
    assert shown.startswith("# version 1, applied 20")
    assert " UTC by nlu/ada\n# sha256:" in shown
    rules = tomllib.loads(shown)
    assert rules["channels"]["staging"] == {}
    assert rules["channels"]["production"]["promoters"] == ["nlu", 'care/Eve "E" L']
    assert rules["channels"]["production"]["max_drop"] == {"*": {"accuracy": 1e-05}}
    assert read("policy", "show")["rules"] == rules
    (home / "shown.toml").write_text(shown)
    assert not read("policy", "apply", "--file", home / "shown.toml")["changed"]


def test_what_changes_is_told_in_words(home: Path) -> None:
    demand(home, "[channels.production]\nmax_layers = 40\nmin_metrics.intnet.f1 = 0.5\n")
    file = home / "rules.toml"
    file.write_text("[channels.production]\nmax_layers = 50\nmin_metrics.intnet.f1 = 0.5\n")
    result = centra("policy", "apply", "--file", file)
    assert result.stdout == "channels.production.max_layers: 40 → 50\n"
    assert result.stderr == (
        "there is no task intnet yet, which the rules name\nversion 2 of the policy is in force\n"
    )
    lines = centra("policy", "history").stdout.splitlines()
    assert lines[1].split()[0] == "2"
    assert lines[1].endswith("nlu/ada  channels.production.max_layers: 40 → 50")
    assert lines[2].split()[0] == "1"
    assert lines[3].strip() == "channels.production.max_layers: not set → 40"
    assert "max_layers = 40" in centra("policy", "show", "1").stdout
    refused("policy", "show", "3", code=3, says="no version 3; its newest is 2")


def test_the_gates_hold_in_whatever_folder_one_stands(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    demand(home, "[channels.production]\nmax_layers = 1\n")
    monkeypatch.setenv("CENTRA_DATABASE_URL", str(home / ".centra" / "registry.db"))
    monkeypatch.setenv("CENTRA_STORE", str(home / ".centra" / "store"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    centra("promote", "1", "--to", "production", code=6)
    refused("policy", "apply", code=3, says="there is no centra.toml here or above")
    (tmp_path / "elsewhere" / "centra.toml").write_text("[channels.production]\nmax_layers = 99\n")
    centra("promote", "1", "--to", "production", code=6)
    refused("channel", "move", "production", "1", code=4, says="the policy has rules")


def test_rules_that_were_never_applied_stop_the_channel_and_not_the_rest(home: Path) -> None:
    with (home / "centra.toml").open("a") as file:
        file.write("[channels.production]\nmax_layer = 4\n")
    says = ("has rules for the channel production", "centra policy apply")
    refused("promote", "1", "--to", "production", code=4, says=says)
    says = ("centra.toml: channels.production.max_layer", "did you mean max_layers?")
    refused("policy", "apply", code=2, says=says)
    centra("task", "list")
    centra("promote", "1", "--to", "staging")


def test_measured_says_what_to_write_now(home: Path) -> None:
    with (home / "centra.toml").open("a") as file:
        file.write("[channels.production]\nmeasured = true\n")
    says = ("production.measured", "data =", "centra release evaluate", "examples =", "found true")
    refused("policy", "apply", code=2, says=says)


def test_admins_alone_apply_or_force(home: Path) -> None:
    demand(home, "[policy]\nadmins = ['release']\n")
    file = home / "rules.toml"
    file.write_text("[channels]\n")
    says = ("nlu/ada may not apply a policy; its admins are release", "--force")
    refused("policy", "apply", "--file", file, code=4, says=says)
    assert centra("policy", "apply", "--file", file, "--dry-run").stdout == (
        'policy.admins: ["release"] → not set\n'
    )
    result = centra("policy", "apply", "--file", file, "--force")
    assert result.stderr == "version 2 of the policy is in force, by force\n"
    assert read("audit")[-1]["forced"]
    assert tomllib.loads(centra("policy", "show").stdout) == {"channels": {}}


@pytest.mark.parametrize("word", ["release", "nlu", "nlu/ada"])
def test_what_the_account_is_called_opens_no_channel(
    home: Path, monkeypatch: pytest.MonkeyPatch, word: str
) -> None:
    demand(home, f"[channels.production]\npromoters = ['{word}']\n")
    monkeypatch.delenv("CENTRA_ACTOR")
    for variable in ("LOGNAME", "USER"):
        monkeypatch.setenv(variable, word)
    result = centra("promote", "1", "--to", "production", code=6)
    assert "promoter" in result.stdout
    refused("task", "retire", "intent", code=4, says="Set CENTRA_ACTOR=nlu/YOU")


def test_a_key_travels_with_the_policy(home: Path, tmp_path: Path) -> None:
    public = support.public(support.make_key(home / "release.pem"))
    demand(home, f"[channels.production]\nsigned_by = ['{public.name}']\n")
    public.unlink()
    assert centra("promote", "1", "--to", "production", code=6).stdout.count("not signed") == 1
    centra("release", "sign", "1", "--key", home / "release.pem")
    shown = centra("policy", "show").stdout
    assert f'name = "{public.name}"' in shown
    (tmp_path / "shown.toml").write_text(shown)
    assert not read("policy", "apply", "--file", tmp_path / "shown.toml")["changed"]
    centra("promote", "1", "--to", "production")


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ("policy apply --file none.toml", 3, "none.toml: no such file"),
        ("policy apply", 2, "has no rules: no table channels, compose or policy"),
        ("policy show 0", 2, "0 is not in the range"),
        ("policy show x", 2, "'x' is not a valid integer"),
    ],
)
def test_what_cannot_be_done_changes_nothing(home: Path, words: str, code: int, says: str) -> None:
    before = state(home)
    refused(*words.split(), code=code, says=says)
    assert state(home) == before
