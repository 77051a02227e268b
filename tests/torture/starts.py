"""What a command starts from: registries that are made once and put back for every attack."""

from __future__ import annotations

import fcntl
from typing import TYPE_CHECKING

from tests.torture.commands import BASE

if TYPE_CHECKING:
    from tests.torture.commands import Command
    from tests.torture.worlds import World

__all__ = ["begin", "do", "line_of"]


def begin(world: World, command: Command) -> None:
    """Put a world where a command starts from."""
    if command.name not in world.kept:
        _start(world, command.start)
        for line in command.before:
            do(world, line)
        world.keep(command.name)
    else:
        world.restore(command.name)


def do(world: World, line: str) -> None:
    """Do a line of a command's ``before`` or ``after``."""
    if line.startswith("!"):
        word, *arguments = line[1:].split()
        _CALLS[word](world, *arguments)
    else:
        world.must(line)


def line_of(world: World, command: Command) -> str:
    """The command's line in a world."""
    return command.line.replace("{init}", world.init)


def _start(world: World, start: str) -> None:
    if start in world.kept:
        world.restore(start)
        return
    match start:
        case "nothing":
            pass
        case "unmade":
            _start(world, "nothing")
            _settle(world)
        case "old":
            _start(world, "unmade")
            _migrate_to_the_last_but_one(world)
        case "empty":
            _start(world, "nothing")
            world.must(world.init)
        case "base":
            _start(world, "empty")
            world.must(*BASE)
            world.age()
    world.keep(start)


def _settle(world: World) -> None:
    """Write the settings alone."""
    from registry.settings import write_config

    words = world.init.split()
    given: dict[str, str | None] = {"database": None, "store": None}
    given |= {words[i][2:]: words[i + 1] for i in range(0, len(words) - 1, 2)}
    write_config(world.work, **given)


def _migrate_to_the_last_but_one(world: World) -> None:
    from alembic import command
    from alembic.script import ScriptDirectory

    from registry.database.engine import writing
    from registry.database.migrations import alembic_config

    with world.here():
        registry = world.registry()
        with writing(registry.engine).begin() as connection:
            config = alembic_config(connection)
            script = ScriptDirectory.from_config(config)
            newest = script.get_revision(script.get_current_head())
            command.upgrade(config, str(newest.down_revision))
        registry.engine.dispose()


def _stale(world: World, channel: str) -> None:
    """Let a pointer be that of a revision before."""
    with world.here():
        registry = world.registry()
        data = registry.store.read_pointer("latest")
        assert data
        registry.store.write_pointer(channel, data.replace(b'"latest"', f'"{channel}"'.encode()))
        registry.engine.dispose()


def _garbage(world: World) -> None:
    """Put some blobs that nothing needs."""
    with world.here():
        registry = world.registry()
        for number in range(5):
            registry.store.put(b"garbage %d" % number)
        registry.engine.dispose()


def _exports(world: World) -> None:
    """Export what another start holds, once."""
    given = world.services.given
    with (given / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (given / "release.tar").exists():
            _start(world, "base")
            world.must("export {given}/task.tar --task intent")
            world.must("export {given}/release.tar --release 2")
            _start(world, "empty")


def _policy(world: World) -> None:
    """Demand something of a channel."""
    with (world.work / "centra.toml").open("a") as file:
        file.write('\n[channels.staging]\npromoters = ["nlu"]\n')


def _settle_on(world: World, store: str) -> None:
    """Name another store in the settings."""
    import tomlkit

    path = world.work / "centra.toml"
    document = tomlkit.parse(path.read_text())
    document["store"] = store
    path.write_text(tomlkit.dumps(document))


def _outdated(world: World) -> None:
    """Restore the database from a backup, after which something was released."""
    with world.backed_up():
        world.must("task update intent {given}/intent-2.safetensors", "compose --release")


def _unguarded(world: World) -> None:
    """Drop a trigger that refuses to change the log."""
    from sqlalchemy import text

    with world.here():
        registry = world.registry()
        sqlite = registry.engine.name == "sqlite"
        name = "audit_events_no_update" if sqlite else "audit_events_append_only ON audit_events"
        with registry.engine.begin() as connection:
            connection.execute(text(f"DROP TRIGGER {name}"))
        registry.engine.dispose()


_CALLS = {
    "stale": _stale,
    "garbage": _garbage,
    "exports": _exports,
    "policy": _policy,
    "settle": _settle_on,
    "outdated": _outdated,
    "unguarded": _unguarded,
}
