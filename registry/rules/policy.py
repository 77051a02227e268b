"""What the policy demands before a channel may serve a release; pure decisions on plain values.

As ``centra.toml`` proposes it (:mod:`registry.policies` keeps what was applied)::

    [policy]
    admins = ["release"]                    # who may apply another; without, everybody

    [compose]
    allow_two_backbones = true              # while tasks move from one to the next

    [channels.staging]
    overwrite = true                        # promotions replace what is there, whatever it holds;
                                            # another team's task or contract is no matter there

    [channels.production]
    from = "staging"                        # it must have served the release before
    promoters = ["nlu", "care/eve"]         # teams, or single people
    releasers = ["release"]                 # who may also change other teams' tasks
    parity = true                           # run every task on its probe again
    max_layers = 40                         # trunk and branches together
    max_overhead = 0.4                      # share of tasks x backbone layers
    max_size = "2 GB"                       # of the release folder
    signed_by = ["keys/release.pub.pem"]    # any one of these; applying takes in the keys themselves

    [channels.production.min_metrics.intent]    # a task's name, or "*" for every task that has it
    accuracy = 0.9

    [channels.production.max_drop."*"]          # against what the channel serves
    accuracy = 0.01

    [channels.production.measured.intent]   # with such tables, metrics count only as measured here
    data = "sha256:..."                     # as 'centra release evaluate' prints it; or a list
    examples = 500                          # at least so many

A channel with a table of its own moves only by promotion and rollback. Every gate is evaluated, so
that one run shows all that is wrong.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
)

from centra.errors import CentraError, UsageError
from centra.formats.documents import sha256
from centra.formats.names import parse_name
from centra.formats.precision import Precision
from centra.formats.sizes import parse_size
from centra.formats.validation import explain
from registry.rules.lifecycle import Actor

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from centra.formats.contract import Contract
    from centra.formats.manifest import LayerAccount

__all__ = [
    "Candidate",
    "ChannelPolicy",
    "Gate",
    "Measure",
    "Policy",
    "SigningKey",
    "Version",
    "evaluate",
]

_EVERY = "*"


def _bytes(value: object) -> object:
    if not isinstance(value, str):
        return value
    size = parse_size(value)
    if size is None:
        raise ValueError("expected a size such as 500 MB or 2 GB")
    return size


def _party(text: str) -> str:
    """A team's name, or ``team/person``."""
    try:
        return str(Actor.parse(text)) if "/" in text else parse_name(text, "team name")
    except CentraError as error:
        raise ValueError(f"expected TEAM or TEAM/PERSON ({error})") from error


def _fingerprint(text: str) -> str:
    match = re.fullmatch(r"(?:sha256:)?([0-9a-f]{64})", text)
    if match is None:
        raise ValueError(
            "expected sha256: and 64 hexadecimal digits, as 'centra release evaluate' prints them"
        )
    return f"sha256:{match[1]}"


def _channel(name: str) -> str:
    return _name(name, "channel name")


def _task(name: str) -> str:
    return _name(name, "task name")


def _task_or_every(name: str) -> str:
    return name if name == _EVERY else _task(name)


def _name(name: str, what: str) -> str:
    try:
        return parse_name(name, what)
    except CentraError as error:
        raise ValueError(str(error)) from error


def _printable(text: str) -> str:
    if not text.isprintable() or not text:
        raise ValueError("expected a name that can be printed")
    return text


def _several(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _tables(value: object) -> object:
    if isinstance(value, bool) or value == {}:
        raise ValueError(
            "say for each task what it is measured on: a table measured.TASK with data = "
            "\"sha256:...\", the fingerprint that 'centra release evaluate' prints, and examples = "
            "the least number of them"
        )
    return value


Metrics = dict[
    Annotated[str, AfterValidator(_task_or_every)],
    dict[Annotated[str, AfterValidator(_printable)], float],
]
"""Task (or ``*``) → metric → number."""
Parties = list[Annotated[str, AfterValidator(_party)]]
"""Teams, and people as ``team/person``."""


def _among(actor: Actor, parties: Parties | None) -> bool:
    """Whether these are the actor's team, or the actor; one of no team is nobody."""
    return actor.team is not None and not {actor.team, str(actor)}.isdisjoint(parties or ())


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)


class Administration(_Table):
    """``[policy]``."""

    admins: Parties | None = None

    def admits(self, actor: Actor) -> bool:
        """Whether this actor may apply another policy."""
        return self.admins is None or _among(actor, self.admins)


class ComposePolicy(_Table):
    """``[compose]``."""

    allow_two_backbones: bool = False


class SigningKey(_Table):
    """A public key, taken in with the policy."""

    name: Annotated[str, AfterValidator(_printable)]
    """Of the file that it came from, for people."""
    pem: str

    @property
    def fingerprint(self) -> str:
        """The SHA-256 digest of the key as DER; see :class:`centra.releases.signing.Signature`."""
        body = "".join(line for line in self.pem.splitlines() if not line.startswith("-"))
        try:
            return sha256(base64.b64decode(body))
        except binascii.Error:  # Such a key is refused when it is applied.
            return sha256(self.pem.encode())

    def __str__(self) -> str:
        return f"{self.name} (sha256:{self.fingerprint[:12]})"


class MeasuredOn(_Table):
    """``[channels.NAME.measured.TASK]``: the data that a task's metrics count on."""

    data: Annotated[
        list[Annotated[str, AfterValidator(_fingerprint)]],
        BeforeValidator(_several),
        Field(min_length=1),
    ]
    """Fingerprints, the most telling first."""
    examples: Annotated[int, Field(gt=0)] = 1
    """At least so many."""


class ChannelPolicy(_Table):
    """``[channels.NAME]``; see the top of this module."""

    from_channel: Annotated[str, AfterValidator(_channel)] | None = Field(
        default=None, alias="from"
    )
    overwrite: bool = False
    promoters: Parties | None = None
    releasers: Parties | None = None
    parity: bool = False
    measured: Annotated[
        dict[Annotated[str, AfterValidator(_task)], MeasuredOn], BeforeValidator(_tables)
    ] = Field(default_factory=dict)
    """Per task; where there is one, no other metric counts."""
    min_metrics: Metrics = Field(default_factory=dict)
    max_drop: Metrics = Field(default_factory=dict)
    max_layers: Annotated[int | None, Field(gt=0)] = None
    max_overhead: Annotated[float | None, Field(gt=0)] = None
    max_size: Annotated[int | None, BeforeValidator(_bytes), Field(gt=0)] = None
    """Bytes."""
    signed_by: list[SigningKey] | None = None

    def admits(self, actor: Actor) -> bool:
        """Whether this actor may move the channel."""
        return self.promoters is None or _among(actor, self.promoters) or self.releases(actor)

    def releases(self, actor: Actor) -> bool:
        """Whether this actor may change every team's tasks on the channel."""
        return _among(actor, self.releasers)

    @property
    def movers(self) -> str:
        """Who may move the channel, where that is not everybody."""
        return ", ".join([*(self.promoters or ()), *(self.releasers or ())])


class Policy(_Table):
    """All the rules."""

    policy: Administration = Administration()
    compose: ComposePolicy = ComposePolicy()
    channels: dict[str, ChannelPolicy] = Field(default_factory=dict)

    @classmethod
    def parse(cls, rules: Mapping[str, Any], where: str) -> Policy:
        """Check the rules.

        Args:
            rules: the tables ``policy``, ``compose`` and ``channels``, with the keys themselves in
                ``signed_by``: ``{"name": ..., "pem": ...}``.
            where: what to call them in errors: the path of ``centra.toml``.

        Raises:
            UsageError: a setting is unknown or of the wrong sort; it is named with its path.
        """
        try:
            policy = cls.model_validate(rules)
        except ValidationError as error:
            raise UsageError("; ".join(f"{where}: {f}" for f in explain(error, cls))) from error
        for name, channel in policy.channels.items():
            parse_name(name, "channel name")
            if channel.from_channel == name:
                raise UsageError(f"{where}: channels.{name}.from: names the channel itself")
        return policy

    def rules(self) -> dict[str, Any]:
        """The same as :meth:`parse` takes them, without what goes without saying."""
        return self.model_dump(mode="json", by_alias=True, exclude_defaults=True)


@dataclass(frozen=True, kw_only=True)
class Measure:
    """Metrics of one version, and how they came about."""

    metrics: Mapping[str, float]
    data: str
    """The fingerprint of the data they were measured on."""
    examples: int


@dataclass(frozen=True, kw_only=True)
class Version:
    """One task of a release, as the gates see it."""

    number: str
    digest: str
    contract: Contract
    reported: Mapping[str, float]
    measured: tuple[Measure, ...]
    """In this precision, the newest first."""
    release: int
    """A release that holds it."""
    precision: Precision = Precision.FP32


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A release as the gates see it."""

    tasks: Mapping[str, Version]
    layers: LayerAccount
    size: int | None
    """Bytes; None where no gate asks."""
    channels: frozenset[str]
    """The channels that serve it or have served it; none for what is not published yet."""
    parity: str | None = None
    """Why parity fails, or None."""
    unsigned: str | None = None
    """Why its signature does not count, or None."""


@dataclass(frozen=True, kw_only=True)
class Gate:
    """One demand, and whether it is met."""

    gate: str
    task: str | None
    passed: bool
    wanted: str
    found: str


def evaluate(
    policy: ChannelPolicy,
    candidate: Candidate,
    before: Mapping[str, Version],
    actor: Actor,
    *,
    accept_redefined: bool,
) -> list[Gate]:
    """Every gate of a channel for a release.

    Args:
        policy: the channel's.
        candidate: the release that is to be served.
        before: the tasks of the release that is served now; none before the first.
        actor: who promotes.
        accept_redefined: whether the actor has said that redefined tasks are wanted.
    """
    gates = []
    if policy.promoters is not None:
        gates.append(_gate("promoter", policy.admits(actor), policy.movers, str(actor)))
    if policy.from_channel is not None:
        found = ", ".join(sorted(candidate.channels)) or "no channel"
        passed = policy.from_channel in candidate.channels
        gates.append(_gate("from", passed, f"served by {policy.from_channel}", found))
    # What an overwritten channel happens to serve is nobody's to rely on.
    for task, version in () if policy.overwrite else sorted(candidate.tasks.items()):
        if task in before and before[task].contract != version.contract:
            numbers = f"{before[task].number} → {version.number}"
            gates.append(
                _gate("redefined", accept_redefined, "--accept-redefined", numbers, task=task)
            )
    gates += _least(policy, candidate)
    gates += _drops(policy, candidate, before)
    layers = candidate.layers
    if policy.max_layers is not None:
        passed = layers.total <= policy.max_layers
        gates.append(_gate("layers", passed, f"at most {policy.max_layers}", str(layers.total)))
    if policy.max_overhead is not None:
        passed = layers.overhead <= policy.max_overhead
        wanted, found = f"at most {policy.max_overhead:.1%}", f"{layers.overhead:.1%}"
        gates.append(_gate("overhead", passed, wanted, found))
    if policy.max_size is not None and candidate.size is not None:
        passed = candidate.size <= policy.max_size
        wanted, found = f"at most {policy.max_size:,} bytes", f"{candidate.size:,} bytes"
        gates.append(_gate("size", passed, wanted, found))
    if policy.parity:
        found = candidate.parity or "every task equals its module"
        gates.append(_gate("parity", candidate.parity is None, "parity", found))
    if policy.signed_by is not None:
        wanted = "signed by " + " or ".join(map(str, policy.signed_by))
        found = candidate.unsigned or "signed"
        gates.append(_gate("signature", candidate.unsigned is None, wanted, found))
    return gates


def _least(policy: ChannelPolicy, candidate: Candidate) -> Iterable[Gate]:
    """The gates of ``min_metrics``."""
    for wanted_task, metrics in policy.min_metrics.items():
        for metric, least in metrics.items():
            for task in _named(wanted_task, metric, candidate.tasks):
                version = candidate.tasks[task]
                counted = _counted(policy, task, version)
                value = counted[0].get(metric) if counted else None
                if value is not None:
                    found = f"{value:.4f}"
                else:
                    found = _lacking(policy, task, version) or "not reported"
                passed = value is not None and value >= least
                yield _gate(f"min {metric}", passed, f"at least {least:g}", found, task=task)


def _drops(
    policy: ChannelPolicy, candidate: Candidate, before: Mapping[str, Version]
) -> Iterable[Gate]:
    """The gates of ``max_drop``: for tasks that change under the same contract."""
    for wanted_task, metrics in policy.max_drop.items():
        for metric, most in metrics.items():
            # What is served tells too which tasks have the metric: the new version may not say.
            known = {*_named(wanted_task, metric, candidate.tasks)}
            known |= {*_named(wanted_task, metric, before)} & candidate.tasks.keys()
            for task in sorted(known):
                new, old = candidate.tasks[task], before.get(task)
                if old is None or old.contract != new.contract:
                    continue
                if (old.digest, old.precision) == (new.digest, new.precision):
                    continue
                pair = _comparable(policy, task, old, new, metric)
                if pair is None:
                    lacking = [_lacking(policy, task, version) for version in (old, new)]
                    passed = False
                    why = "measured on the same data" if policy.measured else "reported by both"
                    found = "; ".join(filter(None, dict.fromkeys(lacking))) or f"not {why}"
                else:
                    # Differences of decimal numbers: 0.91 - 0.90 is a little more than 0.01.
                    passed = pair[0] - pair[1] <= most + 1e-9
                    found = f"{max(pair[0] - pair[1], 0.0):.4f} ({pair[0]:.4f} → {pair[1]:.4f})"
                yield _gate(f"drop {metric}", passed, f"at most {most:g}", found, task=task)


def _named(wanted: str, metric: str, tasks: Mapping[str, Version]) -> list[str]:
    """The tasks that a rule speaks of: the named one, or all that know the metric."""
    if wanted != _EVERY:
        return [wanted] if wanted in tasks else []
    return [
        task
        for task, version in sorted(tasks.items())
        if metric in version.reported or any(metric in m.metrics for m in version.measured)
    ]


def _counted(policy: ChannelPolicy, task: str, version: Version) -> list[Mapping[str, float]]:
    """A version's metrics as far as they count, those that count most first."""
    if policy.measured:
        return [measure.metrics for measure in _on_named(policy, task, version).values()]
    return [*(measure.metrics for measure in version.measured), version.reported][:1]


def _on_named(policy: ChannelPolicy, task: str, version: Version) -> dict[str, Measure]:
    """What was measured on data that the policy names for the task, in the policy's order."""
    on = policy.measured.get(task)
    found = {
        f"sha256:{measure.data}": measure
        for measure in reversed(version.measured)
        if on is not None and measure.examples >= on.examples
    }
    return {data: found[data] for data in (on.data if on else ()) if data in found}


def _comparable(
    policy: ChannelPolicy, task: str, old: Version, new: Version, metric: str
) -> tuple[float, float] | None:
    """A metric of both versions, measured on the same data; or else as both reported it."""
    if policy.measured:
        mine, theirs = (_on_named(policy, task, version) for version in (new, old))
        both = [(theirs[data].metrics, mine[data].metrics) for data in mine if data in theirs]
    else:
        both = [
            (other.metrics, one.metrics)
            for one in new.measured
            for other in old.measured
            if one.data == other.data
        ]
        both.append((old.reported, new.reported))
    return next(((a[metric], b[metric]) for a, b in both if metric in a and metric in b), None)


def _lacking(policy: ChannelPolicy, task: str, version: Version) -> str | None:
    """What a version's metrics lack to count, and how to come by it; None where they count."""
    if not policy.measured or _on_named(policy, task, version):
        return None
    on = policy.measured.get(task)
    if on is None:
        return (
            f"the policy names no data to measure it on: measured.{task}.data, the fingerprint "
            f"that 'centra release evaluate {version.release} --task {task} --data FILE' prints"
        )
    data = " or ".join(f"{data[:19]}…" for data in on.data)
    few = [m.examples for m in version.measured if f"sha256:{m.data}" in on.data]
    if few:
        return f"{version.number} is measured on {max(few)} examples of {data}, not {on.examples}"
    return (
        f"{version.number} is not measured on {data}; run: "
        f"centra release evaluate {version.release} --task {task} --data FILE"
    )


def _gate(gate: str, passed: bool, wanted: str, found: str, *, task: str | None = None) -> Gate:  # noqa: FBT001 - read as a row of a table
    return Gate(gate=gate, task=task, passed=passed, wanted=wanted, found=found)
