"""Commands that are killed, or meet a full disk or a lost database, at each changing system call.

A first run counts the calls. Then each is struck in a run of its own, and afterwards

1. ``doctor`` names only what repeating the command mends;
2. all that was there is there and whole, and the log's chain holds;
3. the command, repeated, ends well, and everything is as after a run that nobody struck;
4. repeated once more it changes nothing;
5. garbage collection leaves what is needed and nothing else.

One attack again: ``python -m tests.torture.crashes SETUP COMMAND MODE CALL``.
"""

from __future__ import annotations

import random
import re
import shlex
import sys
import tempfile
import time
import traceback
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast

from tests.torture import starts
from tests.torture.commands import COMMANDS, Command, available, by_name
from tests.torture.losses import lose
from tests.torture.parallel import both
from tests.torture.shim import Fault
from tests.torture.worlds import Servers, State, World, opened, running, texts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from registry.doctor import Check
    from tests.torture.processes import Done
    from tests.torture.shim import Call, Mode

__all__ = ["Reference", "attack", "differences", "faults", "look", "main", "reference", "storm"]

_STALE = ("is not as the database has it", "is missing")
_KILLS = ("before", "half", "after")


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A command that nobody strikes."""

    calls: list[Call]
    before: State
    after: State
    code: int
    """With which it ends when it is repeated."""
    findings: set[tuple[str, str]]
    """What ``doctor`` finds before: check and state."""
    seconds: float


@dataclass(kw_only=True)
class Attacked:
    """A world and what its commands do when nobody strikes."""

    world: World
    references: dict[str, Reference] = field(default_factory=dict)


def reference(attacked: Attacked, command: Command) -> Reference:
    """Run a command twice, unharmed.

    Raises:
        AssertionError: it fails, or changes something the second time.
    """
    if command.name not in attacked.references:
        world = attacked.world
        starts.begin(world, command)
        line = starts.line_of(world, command)
        before, findings = world.state(), {(c.check, c.state) for c in _doctor(world)}
        start = time.monotonic()
        first = world.run(line)
        seconds = time.monotonic() - start
        assert first.code == 0, f"{command.name}: {first.code}: {first.err}"
        after = world.state()
        assert not after.damage, f"{command.name}: {after.damage}"
        code = 0
        if command.safe:
            again = world.run(line)
            code = again.code
            differs = after.differs(world.state())
            assert code in (0, 5), f"{command.name} again: {code}: {again.err}"
            assert not differs, f"{command.name} again changes {differs}"
        attacked.references[command.name] = Reference(
            calls=first.calls,
            before=before,
            after=after,
            code=code,
            findings=findings,
            seconds=seconds,
        )
    return attacked.references[command.name]


def attack(attacked: Attacked, command: Command, blow: Fault | float) -> tuple[bool, list[str]]:
    """Strike a command once.

    Args:
        attacked: where.
        command: what is struck.
        blow: at which call; or after how many seconds it is killed.

    Returns:
        Whether it was struck, and what did not hold then.
    """
    world, expected = attacked.world, reference(attacked, command)
    starts.begin(world, command)
    line = starts.line_of(world, command)
    if isinstance(blow, Fault):
        paused = world.cut if blow.mode == "pause" and isinstance(world, Servers) else None
        done = world.run(line, fault=blow, paused=paused)
        struck, kills = len(done.calls) >= blow.call, blow.mode in _KILLS
    else:
        done = world.run_installed(line, kill_after=blow)
        struck, kills = done.killed, True
    lost = _ended_badly(done, kills=kills) + look(world, command, expected)
    state = world.state()
    finished = not differences(command, expected.after, state)
    if done.code == 0 and not finished:
        lost.append(f"ended with 0, but {texts(differences(command, expected.after, state))}")
    if command.safe or not finished:
        if command.waits:
            world.age()
        for _ in range(2):
            again = world.run(line)
            if again.code not in (0, expected.code) or "Traceback" in again.err:
                lost.append(f"repeated, it ends with {again.code}: {again.err[-1000:]}")
                break
            differs = differences(command, expected.after, world.state())
            if differs:
                lost.append(f"repeated, {texts(differs)}")
            if differs or not command.safe:
                break
    if command.after:
        starts.do(world, command.after)
    return struck, lost + _collected(world)


def look(world: World, command: Command, expected: Reference) -> list[str]:
    """What does not hold right after a command was struck."""
    lost: list[str] = []
    with world.here():
        lost += [
            f"doctor: {check.check}: {check.state}: {check.found}"
            for check in _doctor(world)
            if not _is_mended(check, command, expected)
        ]
    state = world.state()
    lost += state.damage
    gone = expected.before.needed - state.blobs.keys()
    return lost + [f"blob {digest} is gone" for digest in sorted(gone)]


def _ended_badly(done: Done, *, kills: bool) -> list[str]:
    if "Traceback" in done.err:
        return [f"a traceback: {done.err[-1500:]}"]
    expected = (-9, 0) if kills else (0, 1, 4)
    return [] if done.code in expected else [f"it ended with {done.code}: {done.err[-500:]}"]


def differences(command: Command, expected: State, found: State) -> list[str]:
    differs = expected.differs(found)
    if not command.same_log:
        differs = [line for line in differs if not line.startswith("table audit_")]
    # The temporary file beside a file that was to be written: hidden, and said to be temporary.
    names = [".centra.toml.", *(f".{name}." for name in command.outputs)]
    differs = [line for line in differs if not any(line.startswith(f"files: {n}") for n in names)]
    if command.line.startswith("store "):
        # A copy is a store, of whose temporary files gc takes care when it is the registry's.
        differs = [line for line in differs if not re.match(r"files: \S+/\.[^/]+: None ", line)]
    return differs


def _doctor(world: World) -> list[Check]:
    from registry.doctor import examine

    with world.here():
        return [
            check
            for check in examine(folder=world.work)
            if check.state in ("warning", "problem") and check.check != "clock"
        ]


def _is_mended(check: Check, command: Command, expected: Reference) -> bool:
    if (check.check, check.state) in expected.findings or check.check in command.mends:
        return True
    if check.check == "pointers":
        return all(any(text in line for text in _STALE) for line in check.found.split("\n"))
    return False


def _collected(world: World) -> list[str]:
    """What garbage collection leaves that it should not, or removes."""
    from datetime import timedelta

    from centra.errors import CentraError
    from registry.storage import gc

    world.age()
    with world.here():
        try:
            registry = world.registry()
            gc.collect(registry, grace=timedelta(0), delete=True)
        except CentraError as error:
            return [f"gc: {error}"]
        finally:
            if "registry" in locals():
                registry.engine.dispose()
    state = world.state()
    extra = sorted(state.blobs.keys() - state.needed)
    lost = state.damage + [f"gc leaves {name}" for name in (*extra, *state.leftovers)]
    return [f"after gc: {line}" for line in lost]


def storm(
    kind: str, world: World, seconds: float, seed: int, *, modes: tuple[Mode, ...] = _KILLS
) -> Counter[str]:
    """Strike at commands and calls in a random order, until the time is over.

    Args:
        kind: the world's, to say how to do it again.
        world: where.
        seconds: how long.
        seed: of the order.
        modes: which faults; none for kills at random moments.
    """
    end, chance, counts = time.monotonic() + seconds, random.Random(seed), Counter[str]()
    attacked = Attacked(world=world)
    commands = [command for command in COMMANDS if available(command)]
    left: dict[str, list[Fault]] = {}
    known: dict[str, int] = {}
    while commands and (not counts["rounds"] or time.monotonic() < end):
        command = chance.choice(commands)
        try:
            found = reference(attacked, command)
        except AssertionError as error:
            lose(str(error), f"python -m tests.torture.crashes {kind} {shlex.quote(command.name)}")
            counts["losses"] += 1
            commands.remove(command)
            continue
        if not modes:
            strike(kind, attacked, command, chance.uniform(0.2, 0.5 + found.seconds), counts)
            continue
        if command.name not in left:
            left[command.name] = [*faults(found, modes)]
            known[command.name] = len(left[command.name])
            chance.shuffle(left[command.name])
        if left[command.name]:
            strike(kind, attacked, command, left[command.name].pop(), counts)
        else:
            commands.remove(command)
    if modes:
        counts["ways to strike that were left"] = sum(map(len, left.values()))
    counts["commands"] = len(attacked.references)
    return counts


def faults(found: Reference, modes: tuple[Mode, ...] = _KILLS) -> Iterator[Fault]:
    """Every fault of these modes that can differ from the others, in the order of the calls."""
    for number, call in enumerate(found.calls, 1):
        for mode in modes:
            sent = call.path == "socket"
            if mode in call.modes or (mode == "pause" and sent) or (mode == "full" and not sent):
                yield Fault(mode=mode, call=number)
    if "after" in modes and found.calls:
        yield Fault(mode="after", call=len(found.calls))


def strike(
    kind: str, attacked: Attacked, command: Command, blow: Fault | float, counts: Counter[str]
) -> None:
    """Strike once, count it, and remember what did not hold."""
    try:
        struck, lost = attack(attacked, command, blow)
    except Exception:  # noqa: BLE001 - whatever cannot be read afterwards is lost
        struck, lost = True, [traceback.format_exc()]
    counts["rounds"] += 1
    counts["struck"] += struck
    counts["losses"] += bool(lost)
    if lost:
        again = f"python -m tests.torture.crashes {kind} {shlex.quote(command.name)}"
        if isinstance(blow, Fault):
            calls = reference(attacked, command).calls
            call = calls[blow.call - 1] if blow.call <= len(calls) else None
            at = f"{call.name} of {Path(call.path).name}" if call else "beyond the last call"
            when, again = f"{blow.mode} call {blow.call} ({at})", f"{again} {blow.mode} {blow.call}"
        else:
            when, again = f"killed after {blow:.3f} s", f"{again} kill  # at all calls"
        lose(f"{attacked.world.name}: {command.name}, {when}: {texts(lost)}", again)


def run(seconds: float, seed: int) -> dict[str, int]:
    """Kills at every changing call; see :mod:`tests.torture.__main__`."""
    return both(storm, seconds, seed)


def run_random(seconds: float, seed: int) -> dict[str, int]:
    """Kills of the installed program at random moments."""
    return both(storm, seconds, seed, modes=())


def run_full(seconds: float, seed: int) -> dict[str, int]:
    """Disks that are full from some call on."""
    return both(storm, seconds, seed, modes=("full",), kinds=("sqlite",))


def run_restarts(seconds: float, seed: int) -> dict[str, int]:
    """Databases that end every session before something is sent."""
    return both(storm, seconds, seed, modes=("pause",), kinds=("servers",))


def main(arguments: list[str]) -> int:
    """One attack again.

    Without a mode the calls are listed; without calls all are struck; ``kill`` is all three kills.
    """
    kind, name, *rest = arguments
    command, counts = by_name(name), Counter[str]()
    with ExitStack() as stack:
        services = stack.enter_context(running(servers=kind == "servers"))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()), "world")
        world = stack.enter_context(opened(kind, services, folder))
        attacked = Attacked(world=world)
        found = reference(attacked, command)
        for number, call in enumerate(found.calls, 1):
            print(number, call.name, call.size, call.path)
        if rest:
            modes = _KILLS if rest[0] == "kill" else (cast("Mode", rest[0]),)
            given = [Fault(mode=mode, call=int(call)) for mode in modes for call in rest[1:]]
            for fault in given or faults(found, modes):
                strike(kind, attacked, command, fault, counts)
    print(dict(counts))
    return bool(counts["losses"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
