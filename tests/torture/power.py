"""Power cuts: what the disk under the store had received, and nothing that waited in memory.

The world's folder lies on an ext4 file system in a file, which is written to the file as late as
possible; the database lies elsewhere and loses nothing. The power is cut by copying that file: at
the moment a command has said that it is done, or when it is killed at one of its calls. The copy
is mounted in the place of the original, and then

1. every blob that a row names is there and whole;
2. what a command wrote that had said it was done is whole;
3. the command, repeated, ends well and leaves what it leaves when nothing happens.

It needs root, for mounting. One cut again: ``python -m tests.torture.power COMMAND [CALL]``.
"""

from __future__ import annotations

import os
import random
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.torture import crashes, starts
from tests.torture.commands import COMMANDS, Command, available, by_name
from tests.torture.crashes import Attacked
from tests.torture.losses import lose
from tests.torture.parallel import services
from tests.torture.shim import Fault
from tests.torture.worlds import Folders, running, texts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.torture.worlds import Services

__all__ = ["Disk", "cut", "main", "missing", "storm"]

_SIZE = 64 * 2**20
# The journal and data go to the disk when somebody asks for it, and otherwise as late as can be.
_LATE = "loop,commit=300,data=ordered,noauto_da_alloc"


def missing() -> str | None:
    """Why no power can be cut here; None where it can."""
    if os.geteuid() != 0:
        return "mounting a file system image needs root"
    for program in ("mkfs.ext4", "mount", "umount"):
        if not shutil.which(program):
            return f"there is no {program}"
    with tempfile.TemporaryDirectory(prefix="centra-power-") as folder:
        disk = Disk(Path(folder))
        try:
            disk.make()
            disk.mount()
            disk.unmount()
        except subprocess.CalledProcessError as error:
            return f"no file system image can be mounted: {error.stderr.decode().strip()}"
    return None


class Disk:
    """A file system in a file, and where it is mounted."""

    def __init__(self, folder: Path) -> None:
        self.place = folder / "disk"
        self.image = folder / "disk.ext4"
        self.place.mkdir(parents=True, exist_ok=True)

    def make(self) -> None:
        """Make the file system."""
        with self.image.open("wb") as file:
            file.truncate(_SIZE)
        _do("mkfs.ext4", "-q", "-F", "-m", "0", "-N", "4096", "-J", "size=4", self.image)

    def mount(self) -> None:
        """Mount it."""
        _do("mount", "-o", _LATE, self.image, self.place)

    def unmount(self) -> None:
        """Unmount it."""
        _do("umount", self.place)

    def cut(self) -> None:
        """Go on with what the disk had received."""
        received = self.image.with_suffix(".received")
        _copy(self.image, received)
        self.unmount()
        received.replace(self.image)
        self.mount()


class Disks(Folders):
    """SQLite on the machine's own disk, and the store with all outputs on a disk that is cut."""

    def __post_init__(self) -> None:
        self.disk = Disk(self.root)
        self.disk.make()
        self.disk.mount()
        super().__post_init__()
        self.name = "SQLite + folder on a disk that loses power"

    @property
    def work(self) -> Path:
        """See :meth:`World.work`."""
        return self.root / "disk" / "work"

    @property
    def database(self) -> Path:
        """The database's folder, on the machine's own disk."""
        return self.root / "database"

    @property
    def init(self) -> str:  # type: ignore[override]
        """See :attr:`Folders.init`."""
        return f"--database {self.database}/registry.db --store .centra/store init"

    @property
    def _file(self) -> Path:
        return self.database / "registry.db"

    def keep(self, name: str) -> None:
        """See :meth:`World.keep`: the disk as a whole, when all of it has been written."""
        kept = self.root / "kept" / name
        kept.mkdir(parents=True)
        self.disk.unmount()
        _copy(self.disk.image, kept / "disk.ext4")
        self.disk.mount()
        self.database.mkdir(exist_ok=True)
        shutil.copytree(self.database, kept / "database")
        self.kept[name] = None

    def restore(self, name: str) -> None:
        """See :meth:`World.restore`."""
        kept = self.root / "kept" / name
        self.disk.unmount()
        _copy(kept / "disk.ext4", self.disk.image)
        self.disk.mount()
        shutil.rmtree(self.database)
        shutil.copytree(kept / "database", self.database)

    def forget(self) -> None:
        """See :meth:`World.forget`."""
        self.disk.unmount()


@contextmanager
def opened(services: Services, folder: Path) -> Iterator[Attacked]:
    """A world that can lose power."""
    world = Disks(root=folder.resolve(), services=services)
    try:
        yield Attacked(world=world)
    finally:
        world.forget()


def commands() -> list[Command]:
    """Those that write what must survive: blobs, pointers, signatures and outputs."""
    return [one for one in COMMANDS if available(one) and one.start in ("base", "empty")]


def cut(attacked: Attacked, command: Command, call: int | None = None) -> list[str]:
    """Run a command, cut the power, and say what did not hold.

    Args:
        attacked: a world of :func:`opened`.
        command: what runs.
        call: the number of the call before which the power goes; default when it is done.
    """
    world = attacked.world
    assert isinstance(world, Disks)
    expected = crashes.reference(attacked, command)
    starts.begin(world, command)
    line = starts.line_of(world, command)
    fault = Fault(mode="before", call=call) if call is not None else None
    done = world.run(line, fault=fault)
    world.disk.cut()
    lost = crashes.look(world, command, expected)
    state = world.state()
    differs = crashes.differences(command, expected.after, state)
    if done.code == 0:
        lost += [f"it had said that it was done, but {line}" for line in differs]
    if command.safe or differs:
        again = world.run(line)
        if again.code not in (0, expected.code) or "Traceback" in again.err:
            lost.append(f"repeated, it ends with {again.code}: {again.err[-1000:]}")
        elif differs := crashes.differences(command, expected.after, world.state()):
            lost.append(f"repeated, {texts(differs)}")
    return lost


def storm(attacked: Attacked, seconds: float, seed: int) -> Counter[str]:
    """Cut the power in a random order of commands and moments, until the time is over."""
    end, chance, counts = time.monotonic() + seconds, random.Random(seed), Counter[str]()
    known = commands()
    while time.monotonic() < end:
        command = chance.choice(known)
        try:
            calls = len(crashes.reference(attacked, command).calls)
        except AssertionError as error:
            lose(str(error), f"python -m tests.torture.power {shlex.quote(command.name)}")
            known.remove(command)
            continue
        call = None if chance.random() < 0.5 else chance.randint(1, max(1, calls))
        strike(attacked, command, call, counts)
    return counts


def strike(attacked: Attacked, command: Command, call: int | None, counts: Counter[str]) -> None:
    """Cut once, count it, and remember what did not hold."""
    try:
        lost = cut(attacked, command, call)
    except Exception:  # noqa: BLE001 - whatever cannot be read afterwards is lost
        lost = [traceback.format_exc()]
    counts["cuts"] += 1
    counts["after the command was done"] += call is None
    counts["losses"] += bool(lost)
    if lost:
        when = "when it was done" if call is None else f"before call {call}"
        lose(
            f"power cut: {command.name}, {when}: {texts(lost)}",
            f"python -m tests.torture.power {shlex.quote(command.name)} {call or ''}".rstrip(),
        )


def run(seconds: float, seed: int) -> dict[str, int]:
    """See :mod:`tests.torture.__main__`."""
    if why := missing():
        print(f"no power cuts: {why}", file=sys.stderr)
        return {}
    with _prepared(services()) as attacked:
        return dict(storm(attacked, seconds, seed))


@contextmanager
def _prepared(services: Services) -> Iterator[Attacked]:
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="centra-power-"))
        yield stack.enter_context(opened(services, Path(folder, "world")))


def main(arguments: list[str]) -> int:
    """One cut; or, without a call, one when the command is done and one at each call."""
    command, counts = by_name(arguments[0]), Counter[str]()
    with running(servers=False) as services, _prepared(services) as attacked:
        count = len(crashes.reference(attacked, command).calls)
        given = [int(call) for call in arguments[1:]]
        for call in given or [None, *range(1, count + 1)]:
            strike(attacked, command, call, counts)
    print(dict(counts))
    return bool(counts["losses"])


def _copy(source: Path, target: Path) -> None:
    _do("cp", "--sparse=always", "--reflink=auto", source, target)


def _do(*words: Any) -> None:
    subprocess.run(
        [str(word) for word in words], check=True, stdin=subprocess.DEVNULL, capture_output=True
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
