"""Many processes of all commands at once, in teams whose clocks are minutes apart.

Some are killed at a random call. When all have ended, the registry is held against its own log:
nothing is lost or doubled, nothing changed by somebody who may not, and every pointer, release and
version is what the log says.

One race again: ``python -m tests.torture.races SETUP SEED [PROCESSES [STEPS]]``.
"""

from __future__ import annotations

import json
import math
import random
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter, defaultdict
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.torture import starts
from tests.torture.commands import Command
from tests.torture.losses import lose
from tests.torture.parallel import both
from tests.torture.shim import Fault
from tests.torture.worlds import World, opened, running, texts

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["PROCESSES", "main", "race", "storm"]

PROCESSES, STEPS = 32, 5
_START = Command(name="race", line="")
_TEAMS = {
    # Who, whose task, of which module, and by how many seconds the team's clocks are ahead.
    "nlu": ("nlu/ada", "intent", "intent", 0),
    "dialog": ("dialog/bob", "slots", "slots", 290),
    "quality": ("quality/cy", "same", "same", -410),
}
_MIXTURE = {
    "update": 8,
    "register": 2,
    "redefine": 1,
    "pin": 2,
    "trespass": 1,
    "force": 1,
    "compose": 6,
    "base": 5,
    "promote": 6,
    "stage": 2,
    "rollback": 2,
    "move": 2,
    "sync": 1,
    "pull": 1,
    "export": 1,
    "gc": 2,
    "audit": 1,
}
"""How often each command is taken, beside the others."""
_FINE = (0, 3, 4, 5)
"""Exit codes that a command of a race may end with: done, not there (yet), not allowed, a conflict."""


@dataclass(kw_only=True)
class _Race:
    """What the processes of a race share."""

    world: World
    seed: int
    modules: Path
    lock: threading.Lock = field(default_factory=threading.Lock)
    made: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    until: float = math.inf
    written: list[tuple[str, str]] = field(default_factory=list)
    """Tasks and digests of modules that a command said it had registered."""
    faults: list[str] = field(default_factory=list)

    def module(self, like: str) -> Path:
        """A module file that nobody has used yet."""
        from centra.formats.task_module import TaskModule

        with self.lock:
            self.made += 1
            module = TaskModule.read(self.world.services.given / f"{like}.safetensors")
            metrics = {"accuracy": self.made / 10**6}
            module = TaskModule(module.spec.model_copy(update={"metrics": metrics}), module.tensors)
            path = self.modules / f"{self.made}.safetensors"
            module.write(path)
            return path


def race(
    world: World,
    seed: int,
    *,
    processes: int = PROCESSES,
    steps: int = STEPS,
    until: float = math.inf,
) -> tuple[Counter[str], list[str]]:
    """Run one race.

    Args:
        world: where; it is put back to its start.
        seed: of what the processes do.
        processes: how many at once.
        steps: commands of each, one after the other.
        until: from when on, by :func:`time.monotonic`, none begins another.

    Returns:
        What was done, and what does not hold after it.
    """
    starts.begin(world, _START)
    with tempfile.TemporaryDirectory(prefix="centra-modules-") as folder:
        shared = _Race(world=world, seed=seed, modules=Path(folder), until=until)
        threads = [
            threading.Thread(target=_process, args=(shared, number, steps))
            for number in range(processes)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return shared.counts, [*shared.faults, *_violations(shared)]


def _process(shared: _Race, number: int, steps: int) -> None:
    chance = random.Random(f"{shared.seed} {number}")
    team = [*_TEAMS][number % len(_TEAMS)]
    try:
        for step in range(steps):
            if time.monotonic() > shared.until:
                break
            _step(shared, chance, team, f"p{number}-{step}")
    except Exception as error:  # noqa: BLE001 - a fault of the race itself must not pass unseen
        shared.faults.append(f"process {number}: {error!r}")


def _step(shared: _Race, chance: random.Random, team: str, own: str) -> None:
    actor, task, like, clock = _TEAMS[team]
    line, path = _line(shared, chance, task, like, own)
    fault = None
    if chance.random() < 0.15:
        fault = Fault(mode=chance.choice(("before", "half", "after")), call=chance.randint(1, 80))
    done = shared.world.run(f"--actor {actor} {line}", fault=fault, clock=clock)
    with shared.lock:
        shared.counts["commands"] += 1
        shared.counts["killed"] += done.killed
        if not done.killed:
            shared.counts[f"ended with {done.code}"] += 1
        if done.code == 0 and path is not None:
            from centra.system.files import file_digest

            name = line.split()[2]
            shared.written.append((name, file_digest(path)))
        fine = (*_FINE, 6) if line.startswith("promote") else _FINE  # 6 is a gate that is not met.
        if not done.killed and (done.code not in fine or "Traceback" in done.err):
            shared.faults.append(f"{line}: {done.code}: {done.err[-1500:]}")


def _line(
    shared: _Race, chance: random.Random, task: str, like: str, own: str
) -> tuple[str, Path | None]:
    """A command, and the module that it registers."""
    some = chance.choice(("latest", "production", str(chance.randint(1, 8))))
    other = chance.choice([name for _, name, _, _ in _TEAMS.values() if name != task])
    match chance.choices([*_MIXTURE], weights=[*_MIXTURE.values()])[0]:
        case "update":
            path = shared.module(like)
            return f"task update {task} {path}", path
        case "register":
            path = shared.module("topics")
            return f"task register {own} {path}", path
        case "redefine" if task == "intent":
            path = shared.module("redefined")
            return f"task redefine {task} {path}", path
        case "pin":
            return f"task pin {task}@1.{chance.randint(0, 2)}", None
        case "base":
            version = f"{task}@1.{chance.randint(0, 4)}"
            return f"compose --base production --set {version} --release", None
        case "promote":
            return (
                f"promote {some} --to production{chance.choice(('', ' --rebase', ' --force'))}",
                None,
            )
        case "stage":
            return f"promote {some} --to staging", None
        case "rollback":
            return f"rollback production{chance.choice(('', ' --force'))}", None
        case "move":
            return f"channel move free-{chance.randint(1, 2)} {some}", None
        case "sync":
            return "channel sync", None
        case "pull":
            return f"release pull {some} --output {own}", None
        case "export":
            return f"export {own}.tar --release {some}", None
        case "gc":
            return "gc --delete --grace 0s", None
        case "audit":
            return "audit verify", None
        case "trespass":
            return f"task pin {other}@1.0", None
        case "force":
            return f"task pin {other}@1.0 --force", None
        case _:
            return "compose --release", None


def _violations(shared: _Race) -> Iterator[str]:
    """What does not hold, now that nobody works."""
    world = shared.world
    for line in ("channel sync", "audit verify"):
        done = world.run(line)
        if done.code != 0:
            yield f"{line}: {done.code}: {done.err[-500:]}"
    state = world.state()
    yield from state.damage
    rows = _tables(world)
    yield from _wrong_numbers(rows)
    yield from _lost(rows, shared.written)
    yield from _wrong_channels(rows, state.pointers)
    yield from _wrong_releases(rows, world)
    yield from _log_violations(rows)
    done = world.run("compose --release")
    if done.code not in (0, 6):
        yield f"compose --release afterwards: {done.code}: {done.err[-500:]}"
    if done.code == 0:
        rows = _tables(world)
        latest = next(r for r in rows["channels"] if r["name"] == "latest")
        live = {
            v["id"]
            for v in rows["task_versions"]
            if v["current_of"] and _by_id(rows, "tasks")[v["task_id"]]["state"] == "active"
        }
        if live != _held(rows)[latest["release_id"]]:
            yield "latest is not the live set"


def _tables(world: World) -> dict[str, list[dict[str, Any]]]:
    from sqlalchemy import inspect, text

    with world.here():
        registry = world.registry()
        with registry.engine.connect() as connection:
            names = inspect(connection).get_table_names()
            found = {
                name: [
                    dict(r) for r in connection.execute(text(f"SELECT * FROM {name}")).mappings()
                ]
                for name in names
            }
        registry.engine.dispose()
    return found


def _by_id(rows: dict[str, list[dict[str, Any]]], table: str) -> dict[int, dict[str, Any]]:
    return {row["id"]: row for row in rows[table]}


def _held(rows: dict[str, list[dict[str, Any]]]) -> dict[int, set[int]]:
    """Ids of versions per id of a release."""
    found = defaultdict[int, set[int]](set)
    for row in rows["release_tasks"]:
        found[row["release_id"]].add(row["version_id"])
    return found


def _wrong_numbers(rows: dict[str, list[dict[str, Any]]]) -> Iterator[str]:
    numbers = [row["number"] for row in rows["releases"]]
    if sorted(numbers) != [*range(1, len(numbers) + 1)]:
        yield f"releases have the numbers {sorted(numbers)}"
    for task in rows["tasks"]:
        found = defaultdict[int, list[int]](list)
        current = 0
        for version in rows["task_versions"]:
            if version["task_id"] == task["id"]:
                found[version["major"]].append(version["minor"])
                current += version["current_of"] is not None
        if sorted(found) != [*range(1, len(found) + 1)] or any(
            sorted(minors) != [*range(len(minors))] for minors in found.values()
        ):
            yield f"task {task['name']} has the versions {dict(found)}"
        if current != 1:
            yield f"task {task['name']} has {current} current versions"


def _lost(rows: dict[str, list[dict[str, Any]]], written: list[tuple[str, str]]) -> Iterator[str]:
    tasks = _by_id(rows, "tasks")
    there = Counter((tasks[v["task_id"]]["name"], v["digest"]) for v in rows["task_versions"])
    for task, digest in written:
        if there[task, digest] != 1:
            yield f"{task}: a module that was registered is there {there[task, digest]} times"


def _wrong_channels(
    rows: dict[str, list[dict[str, Any]]], pointers: dict[str, bytes]
) -> Iterator[str]:
    releases = _by_id(rows, "releases")
    for channel in rows["channels"]:
        name = channel["name"]
        moves = sorted(
            (m for m in rows["channel_moves"] if m["channel"] == name), key=lambda m: m["revision"]
        )
        if [m["revision"] for m in moves] != [*range(1, channel["revision"] + 1)]:
            yield f"{name} has the revisions {[m['revision'] for m in moves]}"
        elif moves[-1]["release_id"] != channel["release_id"]:
            yield f"{name} serves another release than it last moved to"
        release = releases[channel["release_id"]]
        pointer = json.loads(pointers.get(f"channels/{name}.json", b"{}"))
        said = tuple(pointer.get(key) for key in ("name", "revision", "manifest"))
        if said != (name, channel["revision"], release["digest"]):
            yield f"the pointer of {name} says {said}"


def _wrong_releases(rows: dict[str, list[dict[str, Any]]], world: World) -> Iterator[str]:
    from centra.formats.manifest import ReleaseManifest

    versions, held = _by_id(rows, "task_versions"), _held(rows)
    with world.here():
        registry = world.registry()
        for release in rows["releases"]:
            path = registry.store.fetch(release["digest"])
            manifest = ReleaseManifest.from_bytes(path.read_bytes(), str(path))
            if manifest.digest != release["digest"]:
                yield f"release {release['number']}: its digest is {manifest.digest} anew"
            modules = {versions[i]["digest"] for i in held[release["id"]]}
            if not modules <= set(manifest.files().values()):
                yield f"release {release['number']} holds other modules than its rows say"
        registry.engine.dispose()


def _log_violations(rows: dict[str, list[dict[str, Any]]]) -> Iterator[str]:
    """Follow the log, and say what nobody had the right to do, and where ``latest`` went back."""
    tasks, versions = _by_id(rows, "tasks"), _by_id(rows, "task_versions")
    teams = {task["name"]: task["team"] for task in rows["tasks"]}
    named = {
        version["id"]: (tasks[version["task_id"]]["name"], f"{version['major']}.{version['minor']}")
        for version in versions.values()
    }
    holds = {
        release["number"]: {named[i] for i in _held(rows)[release["id"]]}
        for release in rows["releases"]
    }
    live: dict[str, str] = {}
    seen: list[set[tuple[str, str]]] = []
    first = -1
    for event in sorted(rows["audit_events"], key=lambda event: int(event["id"])):
        noun, _, verb = event["action"].partition(":")
        details, subject = event["details"], event["subject"]
        details = json.loads(details) if isinstance(details, str) else details
        if noun == "task":
            team = event["actor"].partition("/")[0]
            if team != teams[subject] and not event["forced"]:
                yield f"{event['actor']} did {event['action']} {subject} of {teams[subject]}"
            if verb in ("register", "update", "redefine", "restore"):
                live[subject] = details["version"]
            elif verb == "pin" and subject in live:
                live[subject] = details["to"]
            elif verb == "retire":
                live.pop(subject)
        seen.append(set(live.items()))
        if subject == "latest" and noun == "channel":
            found = [at for at, then in enumerate(seen) if then == holds[details["to"]]]
            if not found:
                yield f"latest served release {details['to']}, which was never the live set"
            elif found[-1] < first:
                yield f"latest went back: revision {details['revision']} serves an older set"
            else:
                first = found[0]


def storm(
    kind: str, world: World, seconds: float, seed: int, *, processes: int = PROCESSES
) -> Counter[str]:
    """Race after race, until the time is over."""
    end, counts = time.monotonic() + seconds, Counter[str]()
    starts.begin(world, _START)
    while not counts["races"] or time.monotonic() < end:
        # A slow machine may end a race early, but not the first before it has begun.
        until = end if counts["races"] else max(end, time.monotonic() + 30)
        strike(kind, world, seed, processes, STEPS, counts, until=until)
        seed += 1
    return counts


def run(seconds: float, seed: int) -> dict[str, int]:
    """See :mod:`tests.torture.__main__`."""
    return both(storm, seconds, seed)


def strike(
    kind: str,
    world: World,
    seed: int,
    processes: int,
    steps: int,
    counts: Counter[str],
    *,
    until: float = math.inf,
) -> None:
    """One race: count it, and remember what did not hold."""
    try:
        done, lost = race(world, seed, processes=processes, steps=steps, until=until)
    except Exception:  # noqa: BLE001 - whatever cannot be read afterwards is lost
        done, lost = Counter(), [traceback.format_exc()]
    counts.update(done)
    counts["races"] += 1
    counts["losses"] += len(lost)
    if lost:
        lose(
            f"{world.name}: race of {processes} processes, seed {seed}: {texts(lost)}",
            f"python -m tests.torture.races {kind} {seed} {processes} {steps}",
        )


def main(arguments: list[str]) -> int:
    """One race again."""
    kind, seed, *rest = arguments
    processes, steps = [*map(int, rest), *(PROCESSES, STEPS)[len(rest) :]]
    counts = Counter[str]()
    with ExitStack() as stack:
        services = stack.enter_context(running(servers=kind == "servers"))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()), "world")
        world = stack.enter_context(opened(kind, services, folder))
        strike(kind, world, int(seed), processes, steps, counts)
    print(dict(counts))
    return bool(counts["losses"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
