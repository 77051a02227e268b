"""What all processes of a test run share: made by the first that asks for it, stopped with the run.

pytest-xdist runs the tests in several processes. A server that each of them started for itself would
take longer to start than most of its tests run, and work while it waits.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["Shared", "shared_things"]

_KEY = pytest.StashKey["Shared"]()


@dataclass(frozen=True)
class Shared:
    """Things that processes share, and what runs beside them as long as they do."""

    folder: Path
    """Short enough for the path of a Unix socket."""

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """What the first process that asks for it has made.

        Args:
            name: of the thing.
            make: makes it; the result can be written as JSON.
        """
        made = self.folder / f"{name}.json"
        with (self.folder / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not made.exists():
                made.write_text(json.dumps(make()))
            return json.loads(made.read_text())

    def beside(
        self,
        script: str,
        *arguments: object,
        folder: Path | None = None,
        environment: Mapping[str, str] | None = None,
        output: int = subprocess.DEVNULL,
    ) -> None:
        """Run a shell script whose standard input ends with all this, also where that is killed.

        It runs in a session of its own, where neither Ctrl-C nor a signal to pytest's group reaches
        it; whoever ends all this waits for its end.

        Args:
            script: what to run.
            arguments: ``$1`` and so on; ``$0`` is the descriptor whose closing is waited for.
            folder: where; default here.
            environment: all of it; default this process's.
            output: the descriptor of its standard output.
        """
        with (self.folder / "end").open() as end, (self.folder / "running").open("w") as running:
            fcntl.flock(running, fcntl.LOCK_SH)
            subprocess.run(
                [
                    "bash",
                    "-c",
                    f"(\n{script}\n) <&0 &",
                    str(running.fileno()),
                    *map(str, arguments),
                ],
                check=True,
                cwd=folder,
                env=environment,
                stdin=end,
                stdout=output,
                stderr=subprocess.DEVNULL if output == subprocess.DEVNULL else None,
                pass_fds=[running.fileno()],
                start_new_session=True,
            )


@contextmanager
def shared_things() -> Iterator[Shared]:
    """Things that last as long as the block, or this process."""
    # Not below pytest's own folder: see Shared.folder, and users of the system have to reach it.
    shared = Shared(Path(tempfile.mkdtemp(prefix="centra-")))
    shared.folder.chmod(0o755)
    os.mkfifo(shared.folder / "end")
    lasting = os.open(shared.folder / "end", os.O_RDWR)
    try:
        yield shared
    finally:
        os.close(lasting)
        with (shared.folder / "running").open("w") as running:
            fcntl.flock(running, fcntl.LOCK_EX)
        shutil.rmtree(shared.folder)


def pytest_configure(config: pytest.Config) -> None:
    """Make the folder in the process that starts the others, or is alone."""
    if worker := getattr(config, "workerinput", None):
        config.stash[_KEY] = Shared(Path(worker["shared"]))
        return
    things = shared_things()
    config.stash[_KEY] = things.__enter__()
    config.add_cleanup(lambda: things.__exit__(None, None, None))


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a process of pytest-xdist where it is."""
    node.workerinput["shared"] = str(node.config.stash[_KEY].folder)


@pytest.fixture(scope="session")
def shared(pytestconfig: pytest.Config) -> Shared:
    """What this process shares with others that run tests."""
    return pytestconfig.stash[_KEY]
