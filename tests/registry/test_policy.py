from __future__ import annotations

import re
import tomllib

import pytest

from centra.errors import UsageError
from registry.rules.policy import ChannelPolicy, Policy
from tests.support import ROOT

DATA = f"sha256:{'1' * 64}"
KEY = {
    "name": "release.pub.pem",
    "pem": "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
}
FULL = f"""
[policy]
admins = ["release"]

[compose]
allow_two_backbones = true

[channels.staging]
overwrite = true

[channels.production]
from = "staging"
promoters = ["release", "nlu/ada"]
releasers = ["ops/eve"]
parity = true
max_layers = 40
max_overhead = 0.4
max_size = "1.5 GB"
signed_by = [{{ name = "release.pub.pem", pem = "AAAA" }}]

[channels.production.min_metrics.intent]
accuracy = 0.9

[channels.production.max_drop."*"]
accuracy = 0.01
macro_f1 = 1

[channels.production.measured.intent]
data = "{DATA}"
examples = 500
"""


def parse(text: str) -> Policy:
    return Policy.parse(tomllib.loads(text), "centra.toml")


def test_a_whole_policy_is_read() -> None:
    policy = parse(FULL)
    assert policy.compose.allow_two_backbones
    assert policy.channels["staging"].overwrite
    production = policy.channels["production"]
    assert (production.from_channel, production.max_size) == ("staging", 1_500_000_000)
    assert [str(key) for key in production.signed_by or ()] == [
        "release.pub.pem (sha256:709e80c88487)"
    ]
    assert production.measured["intent"].data == [DATA]
    assert policy.policy.admins == ["release"]
    assert production.max_drop == {"*": {"accuracy": 0.01, "macro_f1": 1.0}}


def test_the_policy_in_the_documentation_is_one() -> None:
    text = (ROOT / "docs" / "train.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    rules = tomllib.loads(block.replace("3b1f…", f"{0x3B1F:064x}"))
    rules["channels"]["production"]["signed_by"] = [KEY]
    policy = Policy.parse(rules, "train.md")
    shown = policy.channels["production"].model_dump()
    assert all(value not in (None, False, {}) for key, value in shown.items() if key != "overwrite")


def test_without_rules_nothing_is_demanded() -> None:
    policy = parse("")
    assert not policy.compose.allow_two_backbones
    assert policy.channels == {}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("[channels.production]\nmax_layer = 4", "channels.production.max_layer"),
        ("[channels.production]\nmax_layers = 0", "channels.production.max_layers"),
        ("[channels.production]\nmax_layers = '4'", "channels.production.max_layers"),
        ("[channels.production]\nmax_size = '4 apples'", "such as 500 MB"),
        ("[channels.production]\nmax_overhead = nan", "channels.production.max_overhead"),
        ("[channels.production]\nparity = 'yes'", "channels.production.parity"),
        ("[channels.production]\npromoters = 'nlu'", "channels.production.promoters"),
        ("[channels.production]\nfrom = 'production'", "names the channel itself"),
        ("[channels.production.min_metrics]\naccuracy = 0.9", "min_metrics.accuracy"),
        ("[channels.production.max_drop.intent]\naccuracy = 'a'", "max_drop.intent.accuracy"),
        (
            "[channels.production]\ndrop_fails_when = 'significant'\nmax_drop.x.f1 = 0.1",
            "channels.production.drop_fails_when",
        ),
        (
            "[channels.production]\ndrop_fails_when = 'large-and-significant'",
            "channels.production.drop_fails_when: there is no drop to judge",
        ),
        ("[channels.'../evil']\nparity = true", "not a valid channel name"),
        ("[compose]\nallow = true", "compose.allow"),
        ("[channels.production]\nmeasured = true", "measured.TASK with data = "),
        ("[channels.production.measured]", "measured.TASK with data = "),
        ("[channels.production.measured.intent]\nexamples = 5", "measured.intent.data"),
        ("[channels.production.measured.intent]\ndata = []", "measured.intent.data"),
        ("[channels.production.measured.intent]\ndata = 'dev.jsonl'", "64 hexadecimal digits"),
        (
            f"[channels.production.measured.intent]\ndata = '{DATA}'\nexamples = 0",
            "measured.intent.examples",
        ),
        (f"[channels.production.measured.'*']\ndata = '{DATA}'", "not a valid task name"),
        ("[channels.production]\npromoters = ['nlu/']", "expected TEAM or TEAM/PERSON"),
        ("[channels.production]\nreleasers = ['Ada L']", "expected TEAM or TEAM/PERSON"),
        ("[policy]\nadmins = 'release'", "policy.admins"),
        ("[channels.production]\nfrom = 'Staging'", "channels.production.from: "),
        ("[channels.production.min_metrics.'../x']\nf1 = 1", "production.min_metrics.../x: "),
        ('[channels.production.max_drop.x]\n"\\u001b[2J" = 1', "that can be printed"),
        (
            '[channels.production]\nsigned_by = [{ name = "\\u001b", pem = "x" }]',
            "signed_by[0].name: expected a name that can be printed",
        ),
    ],
)
def test_a_malformed_policy_is_refused_and_the_setting_named(text: str, names: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert names in str(caught.value)


@pytest.mark.parametrize(
    ("text", "size"),
    [("10", 10), ("500 MB", 500_000_000), ("2gb", 2_000_000_000), ("1.5K", 1500)],
)
def test_sizes_are_read_with_their_units(text: str, size: int) -> None:
    assert ChannelPolicy(max_size=text).max_size == size  # type: ignore[arg-type]
