"""The policy's rules as a document: what channels demand before they serve a release.

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
    drop_fails_when = "large-and-significant"   # or "large" (max_drop alone decides, the default),
                                            # "large-or-significant" (a small drop fails, too)

    [channels.production.min_metrics.intent]    # a task's name, or "*" for every task that has it
    accuracy = 0.9

    [channels.production.max_drop."*"]          # against what the channel serves
    accuracy = 0.01

    [channels.production.measured.intent]   # with such tables, metrics count only as measured here
    data = "sha256:..."                     # the fingerprint of an evaluation's; or a list
    examples = 500                          # at least so many

A channel with a table of its own moves only by promotion and rollback. What the rules come to for a
release is decided in :mod:`registry.rules.gates`.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING, Annotated, Any, Literal

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
from centra.formats.sizes import parse_size
from centra.formats.validation import explain
from registry.rules.lifecycle import Actor

if TYPE_CHECKING:
    from collections.abc import Mapping


__all__ = [
    "EVERY",
    "ChannelPolicy",
    "DropFailsWhen",
    "MeasuredOn",
    "Policy",
    "SigningKey",
]

EVERY = "*"
"""In the place of a task's name: every task that has the metric."""


class _FingerprintError(ValueError):
    """A fingerprint of data is missing or malformed."""


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
        raise _FingerprintError(
            "expected sha256: and 64 hexadecimal digits, the fingerprint of an evaluation's data",
        )
    return f"sha256:{match[1]}"


def _channel(name: str) -> str:
    return _name(name, "channel name")


def _task(name: str) -> str:
    return _name(name, "task name")


def _task_or_every(name: str) -> str:
    return name if name == EVERY else _task(name)


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
        raise _FingerprintError(
            "say for each task what it is measured on: a table measured.TASK with data = "
            '"sha256:...", the fingerprint of an evaluation\'s data, and examples = the least number '
            "of them",
        )
    return value


Metrics = dict[
    Annotated[str, AfterValidator(_task_or_every)],
    dict[Annotated[str, AfterValidator(_printable)], float],
]
"""Task (or ``*``) → metric → number."""
Parties = list[Annotated[str, AfterValidator(_party)]]
"""Teams, and people as ``team/person``."""


def _includes(parties: Parties | None, actor: Actor) -> bool:
    """Whether these are the actor's team, or the actor; one of no team is nobody."""
    return actor.team is not None and not {actor.team, str(actor)}.isdisjoint(parties or ())


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)


class Administration(_Table):
    """``[policy]``."""

    admins: Parties | None = None

    def may_apply(self, actor: Actor) -> bool:
        """Whether this actor may apply another policy."""
        return self.admins is None or _includes(self.admins, actor)


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


DropFailsWhen = Literal["large", "large-and-significant", "large-or-significant"]
"""When a drop of a metric fails: where it is larger than ``max_drop``; where it is so and significant on
the same data, so that noise is no matter; or where it is either, so that a small one is a matter, too."""


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
    drop_fails_when: DropFailsWhen = "large"
    max_layers: Annotated[int | None, Field(gt=0)] = None
    max_overhead: Annotated[float | None, Field(gt=0)] = None
    max_size: Annotated[int | None, BeforeValidator(_bytes), Field(gt=0)] = None
    """Bytes."""
    signed_by: list[SigningKey] | None = None

    def may_move(self, actor: Actor) -> bool:
        """Whether this actor may move the channel."""
        return (
            self.promoters is None
            or _includes(self.promoters, actor)
            or self.may_change_every_task(actor)
        )

    def may_change_every_task(self, actor: Actor) -> bool:
        """Whether this actor may change every team's tasks on the channel."""
        return _includes(self.releasers, actor)

    @property
    def movers_text(self) -> str:
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
            lacks = any(
                isinstance(fault.get("ctx", {}).get("error"), _FingerprintError)
                for fault in error.errors()
            )
            raise UsageError(
                "; ".join(f"{where}: {f}" for f in explain(error, cls)),
                code="fingerprint-expected" if lacks else "malformed-policy",
            ) from error
        for name, channel in policy.channels.items():
            parse_name(name, "channel name")
            if channel.from_channel == name:
                raise UsageError(f"{where}: channels.{name}.from: names the channel itself")
            if channel.drop_fails_when != "large" and not channel.max_drop:
                raise UsageError(
                    f"{where}: channels.{name}.drop_fails_when: there is no drop to judge; give "
                    f"channels.{name}.max_drop.TASK a limit for a metric"
                )
        return policy

    def rules(self) -> dict[str, Any]:
        """The same as :meth:`parse` takes them, without what goes without saying."""
        return self.model_dump(mode="json", by_alias=True, exclude_defaults=True)
