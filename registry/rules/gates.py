"""What a channel's rules come to for a release: gates, each with what is wanted and what was found.

Pure decisions on plain values. Every gate is evaluated, so that one run shows all that is wrong.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from centra.formats.precision import Precision
from registry.rules.policy import EVERY

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from centra.evaluation.significance import Interval, McNemar
    from centra.formats.contract import Contract
    from centra.formats.manifest import LayerAccount
    from registry.rules.lifecycle import Actor
    from registry.rules.policy import ChannelPolicy, DropFailsWhen

__all__ = ["Candidate", "Gate", "GatedTask", "Measurement", "Remedy", "evaluate_gates"]


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Metrics of one version, and how they came about."""

    metrics: Mapping[str, float]
    data: str
    """The fingerprint of the data they were measured on."""
    examples: int
    outcomes: bytes | None = None
    """What came of each row, packed; None where it is not kept, or no gate asks."""


@dataclass(frozen=True, kw_only=True)
class GatedTask:
    """One task of a release, as the gates see it."""

    number: str
    digest: str
    contract: Contract
    reported: Mapping[str, float]
    measured: tuple[Measurement, ...]
    """In this precision, the newest first."""
    release: int
    """A release that holds it."""
    precision: Precision = Precision.FP32

    def __str__(self) -> str:
        return (
            self.number if self.precision == Precision.FP32 else f"{self.number} {self.precision}"
        )


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A release as the gates see it."""

    tasks: Mapping[str, GatedTask]
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
class Remedy:
    """What would let a gate pass, for programs: a code, and the objects that it is about."""

    code: str
    """``accept-redefined``, ``measure`` or ``name-data``."""
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Gate:
    """One demand, and whether it is met."""

    gate: str
    task: str | None
    passed: bool
    wanted: str
    found: str
    remedies: tuple[Remedy, ...] = ()


def evaluate_gates(
    policy: ChannelPolicy,
    candidate: Candidate,
    before: Mapping[str, GatedTask],
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
        gates.append(_gate("promoter", policy.may_move(actor), policy.movers_text, str(actor)))
    if policy.from_channel is not None:
        found = ", ".join(sorted(candidate.channels)) or "no channel"
        passed = policy.from_channel in candidate.channels
        gates.append(_gate("from", passed, f"served by {policy.from_channel}", found))
    # What an overwritten channel happens to serve is nobody's to rely on.
    for task, version in () if policy.overwrite else sorted(candidate.tasks.items()):
        if task in before and before[task].contract != version.contract:
            gates.append(
                _gate(
                    "redefined",
                    accept_redefined,
                    "acceptance",
                    f"{before[task]} → {version}",
                    task=task,
                    remedies=(Remedy(code="accept-redefined"),),
                )
            )
    gates += _minimum_gates(policy, candidate)
    gates += _drop_gates(policy, candidate, before)
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


def _minimum_gates(policy: ChannelPolicy, candidate: Candidate) -> Iterable[Gate]:
    """The gates of ``min_metrics``."""
    for wanted_task, metrics in policy.min_metrics.items():
        for metric, least in metrics.items():
            for task in _tasks_of_rule(wanted_task, metric, candidate.tasks):
                version = candidate.tasks[task]
                counted = _counting_metrics(policy, task, version)
                value = counted[0].get(metric) if counted else None
                lacking = _lacking(policy, task, version) if value is None else None
                if value is not None:
                    found = f"{value:.4f}"
                else:
                    found = lacking.reason if lacking else "not reported"
                yield _gate(
                    f"min {metric}",
                    value is not None and value >= least,
                    f"at least {least:g}",
                    found,
                    task=task,
                    remedies=(lacking.remedy,) if lacking and lacking.remedy else (),
                )


def _drop_gates(
    policy: ChannelPolicy, candidate: Candidate, before: Mapping[str, GatedTask]
) -> Iterable[Gate]:
    """The gates of ``max_drop``: for tasks that change under the same contract."""
    for wanted_task, metrics in policy.max_drop.items():
        for metric, most in metrics.items():
            # What is served tells too which tasks have the metric: the new version may not say.
            known = {*_tasks_of_rule(wanted_task, metric, candidate.tasks)}
            known |= {*_tasks_of_rule(wanted_task, metric, before)} & candidate.tasks.keys()
            for task in sorted(known):
                new, old = candidate.tasks[task], before.get(task)
                if old is None or old.contract != new.contract:
                    continue
                if (old.digest, old.precision) == (new.digest, new.precision):
                    continue
                yield _drop_gate(policy, task, old, new, metric=metric, most=most)


def _drop_gate(
    policy: ChannelPolicy, task: str, old: GatedTask, new: GatedTask, *, metric: str, most: float
) -> Gate:
    pair = _comparable_values(policy, task, old, new, metric)
    remedies: tuple[Remedy, ...] = ()
    if pair is None:
        lacking = [
            lack for version in (old, new) if (lack := _lacking(policy, task, version)) is not None
        ]
        reasons = dict.fromkeys(lack.reason for lack in lacking)
        why = "measured on the same data" if policy.measured else "reported by both"
        passed, found = False, "; ".join(reasons) or f"not {why}"
        remedies = _distinct([lack.remedy for lack in lacking if lack.remedy])
        if not policy.measured and not _measured_alike(old, new):
            unmeasured = [version for version in (old, new) if not version.measured]
            remedies = _distinct([_measure(task, version) for version in unmeasured or (old, new)])
    else:
        drop = pair.before - pair.after
        large = drop > most + _ROUNDING
        passed, found = not large, f"{max(drop, 0.0):.4f} ({pair.before:.4f} → {pair.after:.4f})"
        # What the limit alone decides needs no test.
        small = policy.drop_fails_when == "large-or-significant" and not large
        if (small and drop > _ROUNDING) or (
            large and policy.drop_fails_when == "large-and-significant"
        ):
            evidence = _evidence(new.contract, pair, metric)
            if evidence is None:
                unkept = _without_outcomes(old, new, pair)
                passed, found = False, f"{found}; {_unknown(unkept, pair)}"
                remedies = _distinct([_measure(task, version) for version in unkept])
            else:
                passed = not evidence.significant
                found += f", {'not ' if passed else ''}significant: {evidence}"
    wanted = f"at most {most:g}{_SIGNIFICANT[policy.drop_fails_when]}"
    return _gate(f"drop {metric}", passed, wanted, found, task=task, remedies=remedies)


_ROUNDING = 1e-9
"""Differences of decimal numbers: 0.91 - 0.90 is a little more than 0.01."""
_SIGNIFICANT: dict[DropFailsWhen, str] = {
    "large": "",
    "large-and-significant": ", or not significant",
    "large-or-significant": ", and not significant",
}


def _evidence(contract: Contract, pair: _Pair, metric: str) -> McNemar | Interval | None:
    """What shows whether a drop is significant; None where the outcomes of a side are not kept."""
    from centra.evaluation.outcomes import unpack_outcomes
    from centra.evaluation.significance import compare_metric
    from centra.kinds import kind_named

    sides = [
        unpack_outcomes(one.outcomes, one.examples)
        for one in pair.measured
        if one.outcomes is not None
    ]
    if len(sides) < 2:
        return None
    return compare_metric(kind_named(contract.kind), contract.labels, metric, *sides)


def _measured_alike(old: GatedTask, new: GatedTask) -> bool:
    """Whether there are data that both are measured on."""
    return not {one.data for one in old.measured}.isdisjoint(one.data for one in new.measured)


def _without_outcomes(old: GatedTask, new: GatedTask, pair: _Pair) -> list[GatedTask]:
    """The versions of which it is not known what came of each row."""
    if not pair.measured:
        return [old, new]
    sides = zip((old, new), pair.measured, strict=True)
    return [version for version, one in sides if one.outcomes is None]


def _unknown(lacking: Sequence[GatedTask], pair: _Pair) -> str:
    """Why it is not known whether a drop is significant."""
    why = (
        "both only report the metric, and are not measured on the same data"
        if not pair.measured
        else f"what came of each row is not kept of {' and '.join(map(str, lacking))}, measured by "
        "an earlier Centra or on too many rows"
    )
    return f"whether that is significant is not known: {why}"


def _distinct(remedies: Sequence[Remedy]) -> tuple[Remedy, ...]:
    return tuple(remedy for i, remedy in enumerate(remedies) if remedy not in remedies[:i])


def _measure(task: str, version: GatedTask) -> Remedy:
    return Remedy(code="measure", data={"release": version.release, "task": task})


def _tasks_of_rule(wanted: str, metric: str, tasks: Mapping[str, GatedTask]) -> list[str]:
    """The tasks that a rule speaks of: the named one, or all that know the metric."""
    if wanted != EVERY:
        return [wanted] if wanted in tasks else []
    return [
        task
        for task, version in sorted(tasks.items())
        if metric in version.reported or any(metric in m.metrics for m in version.measured)
    ]


def _counting_metrics(
    policy: ChannelPolicy, task: str, version: GatedTask
) -> list[Mapping[str, float]]:
    """A version's metrics as far as they count, those that count most first."""
    if policy.measured:
        return [measure.metrics for measure in _on_named_data(policy, task, version).values()]
    return [*(measure.metrics for measure in version.measured), version.reported][:1]


def _on_named_data(policy: ChannelPolicy, task: str, version: GatedTask) -> dict[str, Measurement]:
    """What was measured on data that the policy names for the task, in the policy's order."""
    on = policy.measured.get(task)
    found = {
        f"sha256:{measure.data}": measure
        for measure in reversed(version.measured)
        if on is not None and measure.examples >= on.examples
    }
    return {data: found[data] for data in (on.data if on else ()) if data in found}


def _comparable_values(
    policy: ChannelPolicy, task: str, old: GatedTask, new: GatedTask, metric: str
) -> _Pair | None:
    """A metric of both versions, measured on the same data; or else as both reported it."""
    if policy.measured:
        mine, theirs = (_on_named_data(policy, task, version) for version in (new, old))
        both = [(theirs[data], mine[data]) for data in mine if data in theirs]
    else:
        both = [
            (other, one) for one in new.measured for other in old.measured if one.data == other.data
        ]
    for pair in both:
        before, after = (side.metrics.get(metric) for side in pair)
        if before is not None and after is not None:
            return _Pair(before=before, after=after, measured=pair)
    if policy.measured or not (metric in old.reported and metric in new.reported):
        return None
    return _Pair(before=old.reported[metric], after=new.reported[metric])


@dataclass(frozen=True, kw_only=True)
class _Pair:
    """A metric of the version that is served and of the one that would be."""

    before: float
    after: float
    measured: tuple[Measurement, ...] = ()
    """The measurements of both on the same data; none where both only report it."""


@dataclass(frozen=True, kw_only=True)
class _Lack:
    """What a version's metrics lack to count, and what would mend it."""

    reason: str
    remedy: Remedy | None = None


def _lacking(policy: ChannelPolicy, task: str, version: GatedTask) -> _Lack | None:
    """What a version's metrics lack to count; None where they count."""
    if not policy.measured or _on_named_data(policy, task, version):
        return None
    on = policy.measured.get(task)
    if on is None:
        return _Lack(
            reason=f"the policy names no data to measure it on: measured.{task}.data",
            remedy=replace(_measure(task, version), code="name-data"),
        )
    data = " or ".join(f"{data[:19]}…" for data in on.data)
    few = [m.examples for m in version.measured if f"sha256:{m.data}" in on.data]
    if few:
        return _Lack(
            reason=f"{version} is measured on {max(few)} examples of {data}, not {on.examples}"
        )
    return _Lack(
        reason=f"{version} is not measured on {data}",
        remedy=_measure(task, version),
    )


def _gate(
    gate: str,
    passed: bool,  # noqa: FBT001 - read as a row of a table
    wanted: str,
    found: str,
    *,
    task: str | None = None,
    remedies: tuple[Remedy, ...] = (),
) -> Gate:
    return Gate(
        gate=gate,
        task=task,
        passed=passed,
        wanted=wanted,
        found=found,
        remedies=remedies,
    )
