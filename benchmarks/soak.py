"""A server for minutes under load, while its channel moves again and again, and things go wrong.

Requests come at 80 % of what the server can do. Meanwhile twenty releases are promoted, one of which is
corrupt and one unsigned, and the store goes away for 20 seconds. Every answer is compared with what the
release that it names answers offline.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import shutil
import sys
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.tools.common import (
    ROOT,
    BenchmarkError,
    Goal,
    absolute_path,
    add_options,
    goal_table,
    our_versions,
    publish,
    report,
    say,
    system,
    table,
)
from benchmarks.tools.encoders import MINILM, TINY
from benchmarks.tools.reference import TASKS, ReferenceTask, Setups
from benchmarks.tools.servers import Server, free_port, running_server
from benchmarks.tools.serving_peers import centra_command
from benchmarks.tools.stores import FolderStore, FragileStore, find_s3
from centra.bench.load import Call, Load, LoadReport, Outcome, Target, predict_calls, run_load
from centra.formats.manifest import ChannelPointer
from centra.runtime import Release
from centra.system.files import file_digest
from centra.system.processors import processors
from registry import Registry, backbones, promotion, releases, signatures, tasks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from centra.formats.manifest import ReleaseManifest

RESULTS = ROOT / "benchmarks" / "SOAK.md"
CHANNEL = "production"
SPARE = "spare"
"""A channel that no server follows."""
TEAM = "nlu"
CLIENTS = 64
TEXTS = 48
GONE = 20
"""Seconds that the store is gone, in a run of five minutes."""
_NOTICE = 60
"""Seconds that a server has to take or to refuse a release."""
_SLICE = 2
"""Seconds for which the load goes on at a time while not everything has happened."""
_WORDS = ("hello", "time", "music", "tomorrow", "play", "the", "weather", "some", "in", "london")


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much of a soak it is."""

    seconds: float
    tasks: int
    releases: int
    """Promoted, two of which are refused."""
    share: float
    """Of the measured capacity, that is asked for."""
    measured: float
    """Seconds of a measurement of the capacity."""
    measurements: int
    """Of which the least counts."""
    interval: int
    """Seconds between two looks of the server at its channel."""


FULL = Size(
    seconds=300, tasks=TASKS, releases=20, share=0.8, measured=6, measurements=5, interval=5
)
QUICK = Size(seconds=60, tasks=TASKS, releases=8, share=0.8, measured=4, measurements=2, interval=1)
TRIAL = Size(seconds=6, tasks=4, releases=4, share=0.1, measured=0.5, measurements=1, interval=1)
"""That shows that it runs, on a tiny encoder."""

Answers = list[dict[str, Any]]
"""Of all tasks, text by text."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """A release that is promoted."""

    number: int
    digest: str
    changed: str
    """The digest of the module that is new in it."""
    fault: str = ""
    """``corrupt``, ``unsigned`` or nothing."""


@dataclass(kw_only=True)
class Noticed:
    """What became of a step."""

    what: str
    at: float
    """Seconds after the load began."""
    after: float
    """Seconds until the server had taken or refused it, or said that the store was gone."""
    said: str
    memory: int
    """Bytes of the server then."""


@dataclass(kw_only=True)
class Comparison:
    """Holds every answer against that of the release that it names."""

    expected: dict[str, Answers]
    """By digest."""
    compared: int = 0
    wrong: Counter[str] = field(default_factory=Counter)

    def call(self, place: int, call: Call) -> Call:
        """A call for one text, whose answer is held against the offline ones."""
        return Call(path=call.path, body=call.body, check=partial(self._check, place))

    def _check(self, place: int, body: bytes) -> Outcome:
        found = json.loads(body)
        digest = found["release"]["digest"]
        (answer,) = found["answers"]
        for task in answer["tasks"].values():
            for name in ("version", "module"):
                task.pop(name, None)
        self.compared += 1
        if digest not in self.expected:
            self.wrong["of a release that must not be served"] += 1
            raise ValueError(f"release {digest[:12]} answers, which must not be served")
        if answer["tasks"] != self.expected[digest][place] or answer["errors"]:
            self.wrong["another answer than offline"] += 1
            raise ValueError(f"release {digest[:12]} answers otherwise offline: {answer}")
        return Outcome(inputs=1, answers=len(answer["tasks"]), release=digest)


def main() -> int:
    """Measure; 0 where everything could be measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    add_options(parser, RESULTS, "one minute and eight releases", pins=None)
    parser.add_argument("--work", type=absolute_path, default=ROOT / "build" / "soak")
    parser.add_argument("--minutes", type=float, help="default 5")
    parser.add_argument("--releases", type=int, help="default 20; at least 4")
    parser.add_argument(
        "--trial", action="store_true", help="a tiny encoder in a folder, at a low rate"
    )
    options = parser.parse_args()
    options.quick |= options.trial
    size = TRIAL if options.trial else QUICK if options.quick else FULL
    if options.minutes:
        size = replace(size, seconds=60 * options.minutes)
    if options.releases:
        size = replace(size, releases=options.releases)
    if size.releases < 4:
        parser.error("--releases: a soak has at least 4, two of which are refused")
    before = os.getloadavg()[0]
    shutil.rmtree(options.work / "registry", ignore_errors=True)
    options.work.mkdir(parents=True, exist_ok=True)
    try:
        with ExitStack() as stack:
            s3 = None if options.trial else stack.enter_context(find_s3(options.work / "s3"))
            store = s3 or FolderStore(options.work / "registry" / "store")
            setups = Setups(
                options.work / ("tiny" if options.trial else "minilm"),
                TINY if options.trial else MINILM,
            )
            found = Soak(options.work, setups, store, size).run()
    except BenchmarkError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    settings = [
        (
            f"{system()}; load average {before:.1f} before; the load generator took "
            f"{found.loads[0].processor_share:.0%} of a processor"
        ),
        f"store: {'an S3 server on this machine' if s3 else 'a folder'}",
        f"ours: {our_versions('onnxruntime', 'fastapi', 'uvicorn', 'numpy')}",
    ]
    publish(options, RESULTS, _report(found, settings), found.goals())
    return 0


@dataclass(kw_only=True)
class Findings:
    """What a soak came to."""

    capacity: float
    """Texts per second, saturated: the least of some measurements."""
    loads: list[LoadReport]
    """The first as long as was planned."""
    comparison: Comparison
    noticed: list[Noticed]
    steps: list[Step]
    memory: tuple[int, int]
    """Bytes of the server before and after."""

    def goals(self) -> list[Goal]:
        """What must hold."""
        good = {step.digest for step in self.steps if not step.fault}
        bad = {step.digest for step in self.steps if step.fault}
        answered = {digest for load in self.loads for digest in load.releases}
        planned = sum(load.planned for load in self.loads)
        lost = sum(load.planned - load.answered for load in self.loads)
        failed = lost - self.comparison.wrong.total()
        before, after = self.memory
        return [
            Goal.at_most(0, f"of {planned} requests, those that failed", failed),
            Goal.at_most(
                0,
                f"of {self.comparison.compared} answers, those that are wrong",
                self.comparison.wrong.total(),
            ),
            Goal.at_least(len(good), "good releases that answered", len(good & answered)),
            Goal.at_most(0, "corrupt or unsigned releases that answered", len(bad & answered)),
            Goal.at_most(10, "memory at the end, % more than before", 100 * (after / before - 1)),
        ]


class Soak:
    """A registry with releases to come, and the server that follows its channel."""

    def __init__(self, work: Path, setups: Setups, store: FragileStore, size: Size) -> None:
        self._work = work
        self._setups = setups
        self._store = store
        self._size = size
        folder = work / "registry"
        folder.mkdir()
        self._key = _write_key(folder / "release.pem")
        self._registry = Registry.create(
            folder,
            database=f"sqlite:///{folder / 'registry.db'}",
            store=store.address,
            actor=f"{TEAM}/soak",
        )
        self._texts = [
            " ".join(_WORDS[(i * 7 + j * j) % len(_WORDS)] for j in range(4 + i % 20))
            for i in range(TEXTS)
        ]
        say("tasks, and the releases to come")
        self._steps = self._prepare(size.releases)
        self._expected: dict[str, Answers] = {}
        self._noticed: list[Noticed] = []

    def run(self) -> Findings:
        """Put a load on a server while everything happens."""
        size = self._size
        say("offline answers")
        self._expect()
        first, *steps = self._steps
        promotion.promote(self._registry, first.digest, CHANNEL)
        comparison = Comparison(expected=self._expected)
        plain = predict_calls(inputs=self._texts)
        calls = [comparison.call(place, call) for place, call in enumerate(plain)]
        port = free_port()
        key = self._key.with_suffix(".pub.pem")
        command = centra_command(
            f"{self._store.address}#{CHANNEL}",
            port,
            "--key",
            str(key),
            "--threads",
            str(processors()),
            "--interval",
            f"{size.interval}s",
        )
        cache = {"PYTHONPATH": str(ROOT), "CENTRA_CACHE": str(self._work / "cache")}
        with running_server(
            command,
            port,
            ready="/v1/release",
            folder=self._work / "server",
            environment={**os.environ, **cache},
        ) as server:
            target = Target.parse(server.url)
            say("capacity")
            load = Load(seconds=size.measured, warm_up=size.measured / 4, clients=CLIENTS)
            # A machine that is shared can do less at times.
            capacity = min(
                asyncio.run(run_load(target, calls, load)).requests_per_second
                for _ in range(size.measurements)
            )
            comparison.compared = 0
            before = server.memory()
            rate = size.share * capacity
            say(f"{size.seconds:g} s at {size.share:.0%} of {capacity:.0f} texts per second")
            load = Load(seconds=size.seconds, warm_up=0, clients=4 * CLIENTS, rate=rate)
            found = asyncio.run(self._soak(target, calls, load, server, steps))
            time.sleep(2 * size.interval)  # Then it has given back what it can.
            after = server.memory()
        return Findings(
            capacity=capacity,
            loads=found,
            comparison=comparison,
            noticed=self._noticed,
            steps=self._steps,
            memory=(before, after),
        )

    async def _soak(
        self,
        target: Target,
        calls: Sequence[Call],
        load: Load,
        server: Server,
        steps: Sequence[Step],
    ) -> list[LoadReport]:
        begun = time.perf_counter()
        happening = asyncio.create_task(
            asyncio.to_thread(self._befall, server, steps, begun, load.seconds)
        )
        found = [await run_load(target, calls, load)]
        while not happening.done():  # On a slow machine things take longer to happen.
            found.append(await run_load(target, calls, replace(load, seconds=_SLICE)))
        await happening
        return found

    # What is prepared before the load

    def _prepare(self, number: int) -> list[Step]:
        """Publish a first release and those that follow it, which nobody serves yet."""
        registry = self._registry
        current = self._setups.sentences()[: self._size.tasks]
        backbones.register(registry, "encoder", str(self._setups.encoder_folder))
        for task in current:
            tasks.register(registry, f"task-{task.seed:02}", self._setups.module(task), team=TEAM)
        faults = {number // 3: "corrupt", 2 * number // 3: "unsigned"}
        steps = [self._publish("", "")]
        place = 0
        for turn in range(number):
            fault = faults.get(turn, "")
            task = current[place % len(current)]
            name = f"task-{task.seed:02}"
            new = ReferenceTask(seed=1000 + turn, tap=task.tap, depth=task.depth)
            module = self._setups.module(new)
            tasks.update(registry, name, module)
            steps.append(self._publish(file_digest(module), fault))
            # What is corrupt is mended by the next, which changes the same task.
            place += fault != "corrupt"
        return steps

    def _publish(self, changed: str, fault: str) -> Step:
        composed = releases.compose(self._registry, publish=True)
        digest = composed.manifest.digest
        number = releases.show(self._registry, digest).number
        if fault != "unsigned":
            signatures.sign(self._registry, digest, self._key)
        return Step(number=number, digest=digest, changed=changed, fault=fault)

    def _expect(self) -> None:
        base: Release | None = None
        for step in self._steps:
            manifest: ReleaseManifest = releases.show(self._registry, step.digest).manifest
            release = Release.load(manifest, self._registry.store, engine="onnx", base=base)
            if not step.fault:
                self._expected[step.digest] = json.loads(json.dumps(release.predict(self._texts)))
            base = release

    # What happens during the load

    def _befall(self, server: Server, steps: Sequence[Step], begun: float, seconds: float) -> None:
        """Move the channel at even distances, and take the store away in the middle."""
        every = seconds / (len(steps) + 1)
        gone = min(GONE, seconds / 10)
        for number, step in enumerate(steps):
            _sleep_until(begun + (number + 0.5) * every)
            what = f"release {number + 1}" + (f", {step.fault}" if step.fault else "")
            self._notice(server, what, begun, partial(self._move, step), partial(_settled, step))
            if number == len(steps) // 2:
                self._notice(server, "the store is gone", begun, self._store.leave, _says_gone)
                time.sleep(gone)
                self._notice(server, "the store is back", begun, self._store.come_back, _says_back)

    def _move(self, step: Step) -> None:
        if step.fault != "corrupt":
            promotion.promote(self._registry, step.digest, CHANNEL, force=True)
            return
        # The registry would not promote what is damaged: it is damaged on its way to the server.
        promotion.promote(self._registry, step.digest, SPARE, force=True)
        pointers = [self._registry.store.read_pointer(name) for name in (SPARE, CHANNEL)]
        spare, served = (ChannelPointer.from_bytes(data or b"", "a pointer") for data in pointers)
        self._store.damage(step.changed)
        forged = spare.model_copy(update={"name": CHANNEL, "revision": served.revision + 1})
        self._store.point(CHANNEL, forged.to_bytes())

    def _notice(self, server: Server, what: str, begun: float, act: Any, said: Any) -> None:
        """Have something happen, and wait until the server says so."""
        at = time.perf_counter()
        act()
        acted = time.perf_counter()
        text = ""
        while not text and time.perf_counter() - acted < _NOTICE:
            time.sleep(0.1)
            text = said(server)
        after = time.perf_counter() - acted
        say(f"{what}: {text or 'not noticed'} after {after:.1f} s")
        self._noticed.append(
            Noticed(
                what=what,
                at=at - begun,
                after=after,
                said=text or "not noticed",
                memory=server.memory(),
            )
        )


def _settled(step: Step, server: Server) -> str:
    found = json.loads(server.get("/v1/release"))
    if found["digest"] == step.digest:
        return "served"
    refused = found["refused"]
    if refused and refused["release"] == step.number:
        return f"refused: {_shortened(refused['reason'])}"
    return ""


def _shortened(text: str) -> str:
    """A reason without folders and with the beginnings of digests."""
    return re.sub(r"\b([0-9a-f]{12})[0-9a-f]{52}\b", r"\1…", re.sub(r"\S*/(?=\S)", "", text))


def _says_gone(server: Server) -> str:
    return "said so" if server.metric("centra_store_up") == 0 else ""


def _says_back(server: Server) -> str:
    return "said so" if server.metric("centra_store_up") == 1 else ""


def _sleep_until(moment: float) -> None:
    time.sleep(max(0, moment - time.perf_counter()))


def _write_key(path: Path) -> Path:
    """Write a private key, and beside it the public one."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    private = ec.generate_private_key(ec.SECP256R1())
    pem = serialization.Encoding.PEM
    path.write_bytes(
        private.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    path.with_suffix(".pub.pem").write_bytes(
        private.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return path


def _report(found: Findings, settings: Sequence[str]) -> str:
    load = found.loads[0]
    assert load.latency
    assert load.rate
    before, after = found.memory
    body = [
        *goal_table(found.goals()),
        "",
        (
            f"{load.seconds:.0f} s at {load.rate:.0f} requests per second, one text each, for all "
            f"{len(found.comparison.expected[found.steps[0].digest][0])} tasks: {load.rate / found.capacity:.0%} "
            f"of the {found.capacity:.0f} that the server answered when it was saturated, the least of some measurements. From when a request "
            f"was due until it was answered: median {1000 * load.latency.median:.1f} ms, 99th percentile "
            f"{1000 * load.latency.p99:.0f} ms, longest {1000 * load.latency.max:.0f} ms. Memory: "
            f"{before / 1e6:.0f} MB before, {after / 1e6:.0f} MB after."
        ),
        "",
        *table(
            ("what happened", "at, s", "noticed after, s", "memory then, MB", "the server"),
            [
                [
                    one.what,
                    f"{one.at:.0f}",
                    f"{one.after:.1f}",
                    f"{one.memory / 1e6:.0f}",
                    one.said.replace("|", "\\|"),
                ]
                for one in found.noticed
            ],
        ),
    ]
    errors = [one.first_error for one in found.loads if one.first_error]
    if errors:
        body += ["", f"The first request that failed: {errors[0]}"]
    return report("A server for minutes", "soak.py", body, settings)


if __name__ == "__main__":
    sys.exit(main())
