"""The metrics of all replicas in one text: each series with the replica that it is of.

Replicas tell their metrics as OpenMetrics, which says of each family what it is; Prometheus' older
text differs from it in the heads of families alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["OPENMETRICS", "merged_metrics"]

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
"""What replicas are asked for."""
_SUFFIXES = {"counter": "_total", "info": "_info"}
"""What the older text adds to a family's name."""


def merged_metrics(texts: Mapping[str, str], accept: str) -> tuple[bytes, str]:
    """All series of all replicas, each family with its head once.

    Args:
        texts: as OpenMetrics, by the replica's id.
        accept: the header of who asks, as for :meth:`centra.serving.metrics.Metrics.text`.

    Returns:
        The text, and its content type.
    """
    from prometheus_client.exposition import choose_encoder

    content_type = choose_encoder(accept)[1]
    openmetrics = content_type.startswith("application/openmetrics-text")
    families: dict[str, _Family] = {}
    for replica, text in texts.items():
        _add(families, replica, text)
    lines: list[str] = []
    for name, family in families.items():
        shown, kind = name, family.kind
        if not openmetrics:
            shown += _SUFFIXES.get(kind, "")
            kind = {"info": "gauge", "unknown": "untyped"}.get(kind, kind)
        lines += [f"# HELP {shown} {family.help}", f"# TYPE {shown} {kind}", *family.samples]
    lines += ["# EOF"] if openmetrics else []
    return "".join(f"{line}\n" for line in lines).encode(), content_type


class _Family:
    def __init__(self) -> None:
        self.kind = "unknown"
        self.help = ""
        self.samples: list[str] = []


def _add(families: dict[str, _Family], replica: str, text: str) -> None:
    """Add what a replica tells; its samples follow the head of their family."""
    family = _Family()
    for line in text.splitlines():
        if line.startswith(("# HELP ", "# TYPE ")):
            _, word, name, rest = (*line.split(" ", 3), "")[:4]
            family = families.setdefault(name, _Family())
            if word == "HELP":
                family.help = rest
            else:
                family.kind = rest
        elif line and not line.startswith("#"):
            family.samples.append(_labelled(line, replica))


def _labelled(sample: str, replica: str) -> str:
    """A sample with the label of its replica before its own."""
    place = min(place for mark in "{ " if (place := sample.find(mark)) >= 0)
    name, rest = sample[:place], sample[place:]
    rest = rest.removeprefix("{}")
    if rest.startswith("{"):
        return f'{name}{{replica="{replica}",{rest[1:]}'
    return f'{name}{{replica="{replica}"}}{rest}'
