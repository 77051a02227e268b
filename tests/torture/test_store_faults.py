"""A store that misbehaves, a database that restarts, disks that fill: nothing is lost by it.

``run`` is the long form: ``python -m tests.torture.test_store_faults SECONDS SEED``.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
import uuid
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import pytest
from click.testing import CliRunner

import cli
from tests import services, support
from tests.torture.s3_proxy import at_random, proxied

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.torture.s3_proxy import Proxy, Script

_RATE = 0.3


def run(seconds: float, seed: int) -> dict[str, int]:
    """Attack a registry on a real S3 server through the proxy, as long as it takes.

    Args:
        seconds: how long; the command that runs then is finished.
        seed: of the faults.

    Returns:
        How many ``commands`` ran under faults, how many ``faults`` they met, how many ``failed``
        and said so, and the ``losses``: commands that ended in a traceback, reruns that did not
        finish, and things that did not verify afterwards.
    """
    with ExitStack() as stack:
        start = Path(
            os.environ.get("CENTRA_S3_UP", support.ROOT.parent / "shared" / "services" / "s3-up")
        )
        server = services._start_s3(start, stack)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        end = time.monotonic() + seconds
        counts: Counter[str] = Counter()
        for number in range(1 << 30):
            if time.monotonic() >= end:
                break
            attack = _Attack(server, folder / str(number), at_random(_RATE, seed + number))
            counts += attack.walk(lambda: time.monotonic() < end)
        return dict(counts)


class _Attack:
    """One registry, whose commands meet faults, each until a rerun without them converges."""

    def __init__(self, server: services.S3Server, folder: Path, script: Script) -> None:
        self.server = server
        self.folder = folder
        self.script = script
        self.counts: Counter[str] = Counter({"commands": 0, "faults": 0, "failed": 0, "losses": 0})
        self.said: list[str] = []
        """What failures and losses said."""

    def walk(self, more: Callable[[], bool] = lambda: True, rounds: int = 3) -> Counter[str]:
        """Go through the life of a registry; what happened is counted.

        Args:
            more: whether there is time for another command.
            rounds: how many updates of the task are released.
        """
        bucket = f"faults-{uuid.uuid4().hex}"
        self.folder.mkdir(parents=True)
        with pytest.MonkeyPatch.context() as patch, proxied(self.server.endpoint) as proxy:
            services._become(self.server.owner, patch)
            query = urlencode({"endpoint_url": proxy.endpoint, "addressing_style": "path"})
            url = f"s3://{bucket}/registry?{query}"
            services.s3_client(url).create_bucket(Bucket=bucket)
            patch.setenv("CENTRA_CACHE", str(self.folder / "cache"))
            patch.setenv("CENTRA_ACTOR", "nlu/ada")
            patch.chdir(self.folder)
            self._check(proxy, ["--store", url, "init"])
            for number, words in enumerate(self._commands(rounds)):
                if not more():
                    break
                # Each command finds what it needs in the store, as on a machine of its own.
                patch.setenv("CENTRA_CACHE", str(self.folder / f"cache-{number}"))
                self._attack(proxy, words)
            self._check(proxy, ["doctor"])
            self._check(proxy, ["doctor", "--deep"])
        return self.counts

    def _commands(self, rounds: int) -> Sequence[list[str]]:
        encoder, modules = _made(rounds)
        commands = [
            ["backbone", "register", "tiny", str(encoder)],
            ["task", "register", "intent", str(modules[0])],
            ["compose", "--release"],
        ]
        for number in range(1, rounds + 1):
            commands += [
                ["task", "update", "intent", str(modules[number])],
                ["compose", "--release"],
                ["promote", str(number + 1), "--to", "staging"],
                ["channel", "sync"],
                ["release", "pull", "staging", "--output", "pulled"],
                ["release", "verify", "staging"],
                ["release", "diff", str(number), str(number + 1)],
                ["task", "diff", f"intent@1.{number - 1}", f"intent@1.{number}"],
                ["export", "--release", str(number + 1), "export.tar"],
                ["import", "export.tar"],
                ["gc", "--delete"],
                ["backbone", "register", "tiny", str(encoder)],
            ]
        return commands

    def _attack(self, proxy: Proxy, words: list[str]) -> None:
        before = proxy.faults.total()
        proxy.script = self.script
        code, text = self._command(*words)
        proxy.script = None
        self.counts["commands"] += 1
        self.counts["faults"] += proxy.faults.total() - before
        if code:
            self.counts["failed"] += 1
            self.said.append(f"{' '.join(words)}: {text}")
        self._check(proxy, words)

    def _check(self, proxy: Proxy, words: list[str]) -> None:
        """Run a command without faults; it must do what it is for."""
        proxy.script = None
        code, text = self._command(*words)
        if code:
            self.counts["losses"] += 1
            self.said.append(f"LOSS {' '.join(words)}: {text}")

    def _command(self, *words: str) -> tuple[int, str]:
        result = CliRunner().invoke(cli.main, list(words))
        text = result.stderr[-2000:]
        if result.exception and not isinstance(result.exception, SystemExit):
            self.counts["losses"] += 1
            text = f"LOSS {result.exception!r}"
            self.said.append(f"{' '.join(words)}: {text}")
        return result.exit_code, text


_MADE: dict[str, Path] = {}


def _made(rounds: int) -> tuple[Path, list[Path]]:
    """A tiny encoder, and so many modules on it and one more; made once."""
    from centra.backbone import import_backbone
    from centra.local_store import LocalStore

    if not _MADE:
        folder = Path(tempfile.mkdtemp(prefix="centra-faults-"))
        _MADE["encoder"] = support.make_encoder("bert", folder / "encoder")
        store = LocalStore(folder / "store")
        spec = import_backbone(str(_MADE["encoder"]), store)
        for seed in range(rounds + 1):
            path = _MADE[str(seed)] = folder / f"{seed}.safetensors"
            support.make_module("classification", spec, store, seed=seed).write(path)
    return _MADE["encoder"], [_MADE[str(seed)] for seed in range(rounds + 1)]


if __name__ == "__main__":
    print(run(float(sys.argv[1]), int(sys.argv[2])))
