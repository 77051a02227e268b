"""What the tables must hold by what the log tells, and how they differ from it; pure.

An event says what changed, and since the log is chained it cannot be made to say something else. So
going through all of them gives every row that there must be, with the values that it must have. Events
of an older Centra say less; what they do not say cannot be compared.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from centra.formats.documents import canonical_json, sha256
from registry.rules.channels import LATEST
from registry.rules.lineage import MoveKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = [
    "Change",
    "Row",
    "backbone_content",
    "count_incomplete",
    "differences",
    "measurement_content",
    "numbered",
    "replay",
    "tasks_digest",
    "version_content",
]


@dataclass(frozen=True, kw_only=True)
class Change:
    """What replaying needs of an event."""

    id: int
    actor: str
    action: str
    subject: str
    details: Mapping[str, Any]


@dataclass(kw_only=True)
class Row:
    """A row as the log has it."""

    event: int
    """The event that made it."""
    values: dict[str, Any]
    since: dict[str, int] = field(default_factory=dict)
    """The event that gave a column its value, where that was a later one."""

    def set(self, event: int, **values: Any) -> None:
        """Give columns other values."""
        self.values |= values
        self.since |= dict.fromkeys(values, event)


def replay(events: Iterable[Change]) -> dict[str, Row]:
    """The rows that there must be, each by what it is: ``task intent``, ``release 3``.

    Raises:
        ValueError: an event does not say what one of its kind says; with its number and the reason.
    """
    rows: dict[str, Row] = {}
    for event in events:
        play = _PLAYS.get(event.action)
        try:
            if play is not None:
                play(rows, event)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(event.id, f"is no {event.action} ({error!r})") from error
    return rows


def differences(logged: Mapping[str, Row], actual: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Where the tables are not as the log says, a line each.

    Args:
        logged: see :func:`replay`.
        actual: what the tables hold, likewise.
    """
    lines = []
    for name, row in logged.items():
        values = actual.get(name)
        if values is None:
            lines.append(f"{name}: its row is gone, which event {row.event} made")
            continue
        for column, value in row.values.items():
            if values.get(column) != value:
                lines.append(
                    f"{name}: {column} is {_shortened(values.get(column))}, but by event "
                    f"{row.since.get(column, row.event)} {_shortened(value)}"
                )
    lines += [f"{name}: no event made this row" for name in actual if name not in logged]
    return lines


def count_incomplete(logged: Mapping[str, Row], actual: Mapping[str, Mapping[str, Any]]) -> int:
    """Of how many rows the log does not say every value."""
    return sum(
        bool(actual[name].keys() - row.values.keys())
        for name, row in logged.items()
        if name in actual
    )


def version_content(version: Any, backbone: str) -> dict[str, Any]:
    """What the log tells of a new version, beside its number and its module.

    Args:
        version: its row.
        backbone: the digest of its backbone.
    """
    from centra.formats.contract import Contract

    contract = Contract.of(version)
    return {
        **contract.to_dict(),
        "labels": contract.labels_digest,
        "backbone": backbone,
        "tap_layer": version.tap_layer,
        "depth": version.depth,
        "size": version.size,
        "metrics": version.metrics,
    }


def backbone_content(backbone: Any) -> dict[str, Any]:
    """The same of a new backbone's row."""
    names = ("family", "num_layers", "hidden_size", "max_length", "source")
    return {name: getattr(backbone, name) for name in names}


def tasks_digest(tasks: Mapping[str, tuple[str, str]]) -> str:
    """One digest over what a release holds: the module and the precision of each task."""
    from centra.formats.documents import canonical_json, sha256

    return sha256(canonical_json(dict(tasks)))


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:99]}…"


def _backbone(rows: dict[str, Row], event: Change) -> None:
    details = event.details
    rows[f"backbone {event.subject}@{details['version']}"] = Row(
        event=event.id,
        values={
            "digest": details["digest"],
            "state": "active",
            "created_by": event.actor,
            **details.get("content", {}),
        },
    )


def _backbone_state(rows: dict[str, Row], event: Change) -> None:
    state = "retired" if event.action == "backbone:retire" else "active"
    _change(rows, f"backbone {event.subject}@{event.details['version']}", event, state=state)


def _task(rows: dict[str, Row], event: Change) -> None:
    rows[f"task {event.subject}"] = Row(
        event=event.id, values={"team": event.details["team"], "state": "active"}
    )
    _version(rows, event)


def _version(rows: dict[str, Row], event: Change) -> None:
    details = event.details
    rows[f"version {event.subject}@{details['version']}"] = Row(
        event=event.id,
        values={
            "digest": details["digest"],
            "created_by": event.actor,
            **details.get("content", {}),
        },
    )
    _change(rows, f"task {event.subject}", event, current=details["version"])


def _task_state(rows: dict[str, Row], event: Change) -> None:
    state = "retired" if event.action == "task:retire" else "active"
    _change(rows, f"task {event.subject}", event, state=state)


def _pin(rows: dict[str, Row], event: Change) -> None:
    _change(rows, f"task {event.subject}", event, current=event.details["to"])


def _release(rows: dict[str, Row], event: Change) -> None:
    details = event.details
    row = Row(
        event=event.id,
        values={
            "digest": details["digest"],
            "base": details["base"],
            "created_by": event.actor,
            "tasks": details["tasks"],
        },
    )
    if "holds" in details:
        row.values["holds"] = details["holds"]
    rows[f"release {event.subject}"] = row


def _channel(rows: dict[str, Row], event: Change) -> None:
    details, name = event.details, event.subject
    kind = _MOVES[event.action]
    if name == LATEST and kind == MoveKind.MOVE:
        kind = MoveKind.PUBLISH
    rows[f"move {details['revision']} of channel {name}"] = Row(
        event=event.id,
        values={
            "kind": str(kind),
            "release": details["to"],
            "before": details["from"],
            "by": event.actor,
        },
    )
    rows.setdefault(f"channel {name}", Row(event=event.id, values={})).set(
        event.id, release=details["to"], revision=details["revision"], moved_by=event.actor
    )


def _evaluation(rows: dict[str, Row], event: Change) -> None:
    details = dict(event.details)
    release, version = details.pop("release"), details.pop("version")
    precision, data = details.pop("precision", None), details.pop("data")
    values = {"engine": details.pop("engine", None), "by": event.actor}
    # An older Centra kept nothing of a measurement's rows, so there must be nothing.
    values |= {kept: details.pop(kept, None) for kept in ("summary", "outcomes")}
    if "metrics" in details:
        values |= {"metrics": details["metrics"], "examples": details["examples"]}
    elif not isinstance(precision, float):
        # As they were recorded once, when a metric of that name took the precision's place.
        values |= {"metrics": details}
    name = f"measurement of {event.subject}@{version} in release {release} on {data[:12]}"
    rows[numbered(rows, name)] = Row(event=event.id, values=values)


def measurement_content(
    summary: Mapping[str, Any] | None, outcomes: bytes | None
) -> dict[str, str | None]:
    """What the log tells of what is kept of a measurement's rows: its digests, None for nothing."""
    return {
        "summary": None if summary is None else sha256(canonical_json(summary)),
        "outcomes": None if outcomes is None else sha256(outcomes),
    }


def _policy(rows: dict[str, Row], event: Change) -> None:
    rows[f"policy {event.details['version']}"] = Row(
        event=event.id, values={"digest": event.details["digest"], "created_by": event.actor}
    )


def numbered(taken: Mapping[str, Any], name: str) -> str:
    """The name, with a number where it is taken."""
    count = 1
    while (found := name if count == 1 else f"{name} ({count})") in taken:
        count += 1
    return found


def _change(rows: dict[str, Row], name: str, event: Change, **values: Any) -> None:
    # An event that follows from none is not this module's to judge: it changes nothing.
    if name in rows:
        rows[name].set(event.id, **values)


_MOVES = {
    "channel:move": MoveKind.MOVE,
    "channel:promote": MoveKind.PROMOTE,
    "channel:rollback": MoveKind.ROLLBACK,
}
"""How a channel moved, by the action; ``latest`` follows publishing by itself."""

_PLAYS = {
    "backbone:register": _backbone,
    "backbone:retire": _backbone_state,
    "backbone:restore": _backbone_state,
    "task:register": _task,
    "task:update": _version,
    "task:redefine": _version,
    "task:retire": _task_state,
    "task:restore": _task_state,
    "task:pin": _pin,
    "task:evaluate": _evaluation,
    "release:publish": _release,
    "channel:move": _channel,
    "channel:promote": _channel,
    "channel:rollback": _channel,
    "policy:apply": _policy,
}
