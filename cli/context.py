"""What commands share: the opened registry, and the decorator that hands it over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from cli.output import remark

if TYPE_CHECKING:
    from collections.abc import Callable

    from registry import Registry

__all__ = [
    "Form",
    "JsonOption",
    "json_option",
    "open_registry",
    "registry_for",
    "release_or_default",
]

Form = Literal["object", "array", "lines"]
"""What a command prints with ``--json``: one document, an array of them, or one on each line."""

_Command = TypeVar("_Command", bound="Callable[..., Any]")


class JsonOption(click.Option):
    """``--json``, which knows what the command prints with it."""

    def __init__(
        self, *args: Any, document: str, form: Form, others: dict[str, str], **attributes: Any
    ) -> None:
        super().__init__(*args, **attributes)
        self.document = document
        self.form = form
        self.others = others


def json_option(
    document: str, form: Form = "object", **others: str
) -> Callable[[_Command], _Command]:
    """``--json``.

    Args:
        document: what is printed, a model as ``module:Class``, imported by nobody who does not print it.
        form: one such document, an array of them, or one on each line.
        others: what is printed instead with an option of this name.
    """
    return click.option(
        "--json",
        "as_json",
        is_flag=True,
        help="Print JSON.",
        cls=JsonOption,
        document=document,
        form=form,
        others=others,
    )


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
