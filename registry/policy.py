"""What ``centra.toml`` demands before a channel may serve a release; pure decisions on plain values.

::

    [compose]
    allow_two_backbones = true              # while tasks move from one to the next

    [channels.staging]
    overwrite = true                        # promotions replace what is there, whatever it holds;
                                            # a task with another contract is no matter there

    [channels.production]
    from = "staging"                        # it must have served the release before
    promoters = ["release", "nlu/ada"]      # teams, or single people
    parity = true                           # run every task on its probe again
    measured = true                         # metrics count only if 'centra release evaluate' took them
    max_layers = 40                         # trunk and branches together
    max_overhead = 0.4                      # share of tasks x backbone layers
    max_size = "2 GB"                       # of the release folder
    signed_by = ["keys/release.pub.pem"]    # any one of these

    [channels.production.min_metrics.intent]    # a task's name, or "*" for every task that has it
    accuracy = 0.9

    [channels.production.max_drop."*"]          # against what the channel serves
    accuracy = 0.01

A channel with a table of its own moves only by promotion and rollback. Every gate is evaluated, so
that one run shows all that is wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from centra.errors import UsageError
from centra.names import parse_name
from centra.sizes import parse_size
from centra.validation import explain

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from centra.release import LayerAccount, Precision
    from registry.lifecycle import Actor

__all__ = ["Candidate", "ChannelPolicy", "Gate", "Measure", "Policy", "Version", "evaluate"]

_EVERY = "*"


def _bytes(value: object) -> object:
    if not isinstance(value, str):
        return value
    size = parse_size(value)
    if size is None:
        raise ValueError("expected a size such as 500 MB or 2 GB")
    return size


Metrics = dict[str, dict[str, float]]
"""Task (or ``*``) → metric → number."""


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)


class ComposePolicy(_Table):
    """``[compose]``."""

    allow_two_backbones: bool = False


class ChannelPolicy(_Table):
    """``[channels.NAME]``; see the top of this module."""

    from_channel: str | None = Field(default=None, alias="from")
    overwrite: bool = False
    promoters: list[str] | None = None
    parity: bool = False
    measured: bool = False
    min_metrics: Metrics = Field(default_factory=dict)
    max_drop: Metrics = Field(default_factory=dict)
    max_layers: Annotated[int | None, Field(gt=0)] = None
    max_overhead: Annotated[float | None, Field(gt=0)] = None
    max_size: Annotated[int | None, BeforeValidator(_bytes), Field(gt=0)] = None
    """Bytes."""
    signed_by: list[str] | None = None

    def admits(self, actor: Actor) -> bool:
        """Whether this actor may move the channel."""
        return self.promoters is None or bool({str(actor), actor.team} & {*self.promoters})


class Policy(_Table):
    """All the rules of a ``centra.toml``."""

    compose: ComposePolicy = ComposePolicy()
    channels: dict[str, ChannelPolicy] = Field(default_factory=dict)

    @classmethod
    def parse(cls, rules: Mapping[str, Any], folder: Path) -> Policy:
        """Check the rules.

        Args:
            rules: the tables ``compose`` and ``channels``.
            folder: where relative paths of keys count from.

        Raises:
            UsageError: a setting is unknown or of the wrong sort; it is named with its path.
        """
        try:
            policy = cls.model_validate(rules)
        except ValidationError as error:
            raise UsageError("; ".join(f"centra.toml: {f}" for f in explain(error, cls))) from error
        for name, channel in policy.channels.items():
            parse_name(name, "channel name")
            if channel.from_channel == name:
                raise UsageError(f"centra.toml: channels.{name}.from: names the channel itself")
        channels = {
            name: channel.model_copy(
                update={"signed_by": [str(folder / key) for key in channel.signed_by]}
            )
            if channel.signed_by
            else channel
            for name, channel in policy.channels.items()
        }
        return policy.model_copy(update={"channels": channels})


@dataclass(frozen=True, kw_only=True)
class Measure:
    """Metrics of one version, and how they came about."""

    metrics: Mapping[str, float]
    data: str | None
    """The fingerprint of the data they were measured on; None where they are only reported."""


@dataclass(frozen=True, kw_only=True)
class Version:
    """One task of a release, as the gates see it."""

    number: str
    digest: str
    contract: tuple[str, str, tuple[str, ...]]
    reported: Mapping[str, float]
    measured: tuple[Measure, ...]
    """In this precision, the newest first."""
    release: int
    """A release that holds it."""
    precision: Precision = "fp32"


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
        wanted = ", ".join(policy.promoters)
        gates.append(_gate("promoter", policy.admits(actor), wanted, str(actor)))
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
        wanted = "signed by " + " or ".join(Path(key).name for key in policy.signed_by)
        found = candidate.unsigned or "signed"
        gates.append(_gate("signature", candidate.unsigned is None, wanted, found))
    return gates


def _least(policy: ChannelPolicy, candidate: Candidate) -> Iterable[Gate]:
    """The gates of ``min_metrics``."""
    for wanted_task, metrics in policy.min_metrics.items():
        for metric, least in metrics.items():
            for task in _named(wanted_task, metric, candidate.tasks):
                measure = _newest(candidate.tasks[task], measured=policy.measured)
                value = measure.metrics.get(metric) if measure else None
                yield _gate(
                    f"min {metric}",
                    value is not None and value >= least,
                    f"at least {least:g}",
                    _shown(value, candidate.tasks[task], task, measured=policy.measured),
                    task=task,
                )


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
                pair = _comparable(old, new, metric, measured=policy.measured)
                if pair is None:
                    both = "measured on the same data" if policy.measured else "reported by both"
                    passed, found = False, f"not {both}"
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


def _newest(version: Version, *, measured: bool) -> Measure | None:
    if version.measured:
        return version.measured[0]
    return None if measured else Measure(metrics=version.reported, data=None)


def _comparable(
    old: Version, new: Version, metric: str, *, measured: bool
) -> tuple[float, float] | None:
    """A metric of both versions, measured on the same data; or else as both reported it."""
    for mine in new.measured:
        for theirs in old.measured:
            if mine.data == theirs.data and metric in mine.metrics and metric in theirs.metrics:
                return theirs.metrics[metric], mine.metrics[metric]
    if not measured and metric in old.reported and metric in new.reported:
        return old.reported[metric], new.reported[metric]
    return None


def _shown(value: float | None, version: Version, task: str, *, measured: bool) -> str:
    if value is not None:
        return f"{value:.4f}"
    if measured:
        return (
            f"not measured; run: centra release evaluate {version.release} --task {task} --data DIR"
        )
    return "not reported"


def _gate(gate: str, passed: bool, wanted: str, found: str, *, task: str | None = None) -> Gate:  # noqa: FBT001 - read as a row of a table
    return Gate(gate=gate, task=task, passed=passed, wanted=wanted, found=found)
