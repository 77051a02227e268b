"""``centra store``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli.completion import complete_path
from cli.context import json_option, open_registry
from cli.output import print_json, remark, reporting
from cli.streams import mark_done

if TYPE_CHECKING:
    from registry.storage.stores import StoreDetail


@click.group()
def store() -> None:
    """Show, copy and move the registry's store."""


@store.command()
@json_option("registry.documents.stores:Store")
def show(*, as_json: bool) -> None:
    """Show where the store is, whose it is and what it holds."""
    from registry.storage import stores

    detail = stores.show(open_registry())
    if as_json:
        from registry.documents.stores import Store

        print_json(Store.of(detail))
        return
    click.echo(detail.address)
    click.echo(f"  {_whose(detail)}")
    click.echo(
        f"  {detail.blobs} blobs, {detail.bytes:,} bytes, {detail.pointers} channel pointers"
    )


@store.command()
@click.argument("target", shell_complete=complete_path)
@json_option("registry.documents.stores:StoreCopy")
def copy(target: str, *, as_json: bool) -> None:
    """Copy all that the registry reaches to another store.

    TARGET is an empty place, or an earlier copy, which then gets what it lacks; nothing is deleted.
    Servers can read from a copy, but no command writes to it.
    """
    from registry.storage import stores

    with reporting() as progress:
        copied = stores.copy(open_registry(), target, progress)
    mark_done()
    if as_json:
        from registry.documents.stores import StoreCopy

        print_json(StoreCopy.of(copied))
        return
    click.echo(
        f"copied to {copied.address}: {copied.blobs} blobs, {copied.bytes:,} bytes, "
        f"{copied.signatures} signatures, {copied.pointers} channel pointers"
    )


@store.command()
@click.argument("target", shell_complete=complete_path)
@json_option("registry.documents.stores:MovedStore")
def move(target: str, *, as_json: bool) -> None:
    """Copy the store to TARGET, and write there from then on.

    Killed at any moment, it is repeated. The old store keeps what it has; remove it when no server
    follows it any more.
    """
    from registry.storage import stores
    from registry.storage.identity import store_address

    registry = open_registry()
    with reporting() as progress:
        moved = stores.move(registry, target, progress)
    mark_done()
    if as_json:
        from registry.documents.stores import MovedStore

        print_json(MovedStore.of(moved))
    else:
        done = "moved" if moved.changed else "already moved"
        click.echo(f"{done} to {moved.address}: {moved.blobs} blobs, {moved.bytes:,} bytes copied")
    if store_address(registry.store) != moved.address:
        remark(f"set the store to {moved.address} in {registry.origins['store']}, for everybody")
        remark("servers that read the old store: start them anew with the new address")
    if not moved.left:
        remark("the old store cannot be written, so it does not say where it was moved to")


@store.command()
@click.option("--incomplete", is_flag=True, help="Although it lacks blobs that the database names.")
@json_option("registry.documents.stores:AdoptedStore")
def adopt(*, incomplete: bool, as_json: bool) -> None:
    """Make the store that is set the one that this database writes to.

    For a copy that takes the place of a store that was lost, and for one that says not whose it is.
    A store of another registry is refused.
    """
    from registry.storage import stores

    adopted = stores.adopt(open_registry(), incomplete=incomplete)
    mark_done()
    if as_json:
        from registry.documents.stores import AdoptedStore

        print_json(AdoptedStore.of(adopted))
        return
    state = "is now" if adopted.changed else "is already"
    click.echo(f"{adopted.address} {state} this registry's store")
    if adopted.missing:
        remark(f"it lacks {adopted.missing} blobs that the database names; see: centra doctor")


def _whose(detail: StoreDetail) -> str:
    from registry.storage.identity import short_id

    if detail.store is None or detail.registry is None:
        return "says not whose it is"
    what = f"store {short_id(detail.store)} of registry {short_id(detail.registry)}"
    if detail.own:
        return f"{what}, which is this one"
    if detail.registry != detail.database:
        return f"{what}, not of this one, {short_id(detail.database)}"
    if detail.moved_to:
        return f"{what}, which is this one: moved to {detail.moved_to}"
    return f"{what}, which is this one: a copy"
