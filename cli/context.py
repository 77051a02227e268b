"""What commands share: the opened registry, and the decorator that hands it over."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli.output import remark

if TYPE_CHECKING:
    from registry import Registry

__all__ = ["json_option", "open_registry", "registry_for", "release_or_default"]

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def registry_for(reference: str) -> Registry | None:
    """The registry that a release's name is looked up in; none for an address of its own."""
    from registry.releases import is_address

    return None if is_address(reference) else open_registry()


def release_or_default(reference: str | None) -> tuple[Registry | None, str]:
    """A release's name and :func:`registry_for` it; where none is named, a remark says which."""
    from registry import channels

    if reference is not None:
        return registry_for(reference), reference
    registry = open_registry()
    row = channels.default(registry)
    remark(f"no release is named; taking release {row.release}, which {row.name} serves")
    return registry, str(row.release)


def open_registry() -> Registry:
    """The registry that the root group's options, the environment and ``centra.toml`` name.

    Its database connections are closed when the command ends.
    """
    from registry import Registry

    context = click.get_current_context()
    registry = Registry.open(**context.find_root().obj)
    context.call_on_close(registry.engine.dispose)
    return registry
