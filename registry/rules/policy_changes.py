"""The settings that differ between two policies; pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from registry.rules.policy import SigningKey

__all__ = ["Setting", "changed_settings"]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A setting that differs between two policies."""

    setting: str
    """Its path: ``channels.production.max_layers``."""
    before: Any
    """None where it is not set; a table is ``{}``."""
    after: Any


def changed_settings(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Setting]:
    """What changes from one policy's rules to another's, in the order of the paths."""
    old, new = dict(_settings(before)), dict(_settings(after))
    return [
        Setting(setting=path, before=old.get(path), after=new.get(path))
        for path in sorted(old.keys() | new.keys())
        if old.get(path) != new.get(path)
    ]


def _settings(table: Mapping[str, Any], *parents: str) -> Iterator[tuple[str, Any]]:
    """Each setting with its path; a channel's table itself is one, since it has a meaning."""
    for name, value in table.items():
        path = (*parents, name)
        if isinstance(value, dict):
            if parents == ("channels",):
                yield ".".join(path), {}
            yield from _settings(value, *path)
        else:
            yield ".".join(path), _plain(value)


def _plain(value: Any) -> Any:
    """A setting as it is told: a key by its name and fingerprint."""
    if not isinstance(value, list):
        return value
    return [str(_signing_key(item)) if isinstance(item, dict) else item for item in value]


def _signing_key(fields: dict[str, str]) -> SigningKey:
    from registry.rules.policy import SigningKey

    return SigningKey.model_validate(fields)
