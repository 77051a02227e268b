"""Looking at the channels' pointers: whether they are as the database has them."""

from __future__ import annotations

from registry import channels
from registry.doctor.findings import Finding, Setup, well

__all__ = ["check_pointers"]


def check_pointers(setup: Setup) -> list[Finding]:
    """Whether each channel has its pointer, and each pointer its channel."""
    registry = setup.registry
    rows = {row.name: row for row in channels.list(registry)}
    wrong: list[Finding] = []
    for name, row in rows.items():
        # Asked twice: a pointer follows its channel a moment later.
        fault = channels.pointer_fault(registry, row)
        fault = fault and channels.pointer_fault(registry, channels.show(registry, name))
        if fault:
            text = f"the pointer of {name} {fault}"
            wrong.append(Finding(code="pointer-stale", text=text, data={"channel": name}))
    for name in registry.store.pointers():
        if name not in rows:
            text, data = f"channels/{name}.json belongs to no channel", {"channel": name}
            wrong.append(
                Finding(state="warning", code="pointer-of-no-channel", text=text, data=data)
            )
    return wrong or well(f"as the database has them; channels: {len(rows)}")
