"""What a server costs on top of a release, and how it stands beside others, under load.

The merged release of 21 tasks behind our server; the same 21 tasks with all layers of their own behind
our server; Infinity with a model per task; LitServe around the merged release. All take turns, asked by the
load generator of ``centra bench --url`` on the same machine.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.tools.common import (
    ROOT,
    BenchmarkError,
    Comparison,
    Goal,
    absolute_path,
    add_options,
    find_peers,
    goal_table,
    our_versions,
    peer_versions,
    publish,
    report,
    say,
    system,
    table,
)
from benchmarks.tools.encoders import BASE, MINILM, TINY, Encoder
from benchmarks.tools.reference import TASKS, Setup, Setups
from benchmarks.tools.servers import Server, free_port, running_server
from benchmarks.tools.serving_peers import (
    centra_command,
    infinity_calls,
    infinity_command,
    litserve_calls,
    litserve_command,
    peer_environment,
    write_checkpoints,
)
from centra.bench.load import Call, Load, LoadReport, Target, predict_calls, run_load
from centra.runtime import Release, load_release
from centra.system.memory import available_memory
from centra.system.processors import processors

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

RESULTS = ROOT / "benchmarks" / "SERVING.md"
PLOT = RESULTS.with_suffix(".png")
PINS = ROOT / "benchmarks" / "peers-serving.txt"
CLIENTS = 32
"""Of a saturated server, with one text each."""
_SLOW = 0.4
"""Seconds of a text at one client."""
_TURNS = 2
"""Times that each client of a slow way is answered, at least."""
TOKENS = 16
_BLOCKS = 6
"""Of one client's turn, in which our server and the runtime alternate: what differs is not the moment."""
_LOADED = 2
"""Times its layers' bytes, that loading full models may take in memory."""
NUMBERS = (1, 2, 5, 10, 21, 50, 100)
"""Tasks, where it is measured what another costs."""
OURS = "ours, merged"
SINGLES = "ours, a full model per task"
INFINITY = "Infinity, a model per task"
LITSERVE = "LitServe, merged"
OFFLINE = "offline"

_WORDS = ("hello", "time", "music", "tomorrow", "play", "the", "weather", "some", "in", "london")
"""Each is one token."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """How long it is measured."""

    tasks: int
    rounds: int
    seconds: float
    """Of a turn."""
    warm_up: float
    half: float
    """Seconds at half load."""
    numbers: tuple[int, ...]


FULL = Size(tasks=TASKS, rounds=3, seconds=6, warm_up=2, half=20, numbers=NUMBERS)
QUICK = Size(tasks=TASKS, rounds=1, seconds=3, warm_up=1, half=5, numbers=(1, 5, 21))
TRIAL = Size(tasks=3, rounds=1, seconds=0.3, warm_up=0, half=0.5, numbers=(1, 2))
"""That shows that it runs."""


@dataclass(frozen=True, kw_only=True)
class Way:
    """A way to have texts answered for all tasks."""

    name: str
    server: Server
    calls: Sequence[Call]
    requests: float = 1
    """So many answer one text for all tasks."""

    def ask(
        self, seconds: float, warm_up: float, *, clients: int = CLIENTS, rate: float | None = None
    ) -> LoadReport:
        """Put a load on it.

        Raises:
            BenchmarkError: not every request was answered.
        """
        load = Load(seconds=seconds, warm_up=warm_up, clients=clients, rate=rate)
        found = asyncio.run(run_load(Target.parse(self.server.url), self.calls, load))
        if found.failed or found.rejected:
            raise BenchmarkError(
                f"{self.name}: {found.failed + found.rejected} of {found.planned} requests were not "
                f"answered: {found.first_error}"
            )
        return found


@dataclass(kw_only=True)
class Findings:
    """What was measured of one size of encoder."""

    name: str
    tasks: int
    seconds: dict[str, list[float]] = field(default_factory=dict)
    """Per text for all tasks, saturated, by way and round."""
    alone: dict[str, list[float]] = field(default_factory=dict)
    """Of one text at one client, by way, round and block."""
    half: dict[str, LoadReport] = field(default_factory=dict)
    memory: dict[str, int] = field(default_factory=dict)
    """Bytes, after all that."""
    ready: dict[str, float] = field(default_factory=dict)
    """Seconds from the start of the process."""
    batches: list[float] = field(default_factory=list)
    """Inputs of our server's batches, saturated; the mean of each round."""
    models: int = 0
    """How many full models were served; what they took is scaled up to as many as there are tasks."""
    share: float = 0
    """Of a processor, that the load generator took while our server was saturated; the most."""


def main() -> int:
    """Measure; 0 where everything could be measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    add_options(parser, RESULTS, "MiniLM's size alone, one round", pins=PINS)
    parser.add_argument("--work", type=absolute_path, default=ROOT / "build" / "serving")
    parser.add_argument(
        "--base",
        type=absolute_path,
        default=ROOT / "build" / "runtime",
        help="the folder of runtime.py",
    )
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--no-peers", action="store_true", help="leave Infinity and LitServe out")
    parser.add_argument("--trial", action="store_true", help="a tiny encoder, to show that it runs")
    options = parser.parse_args()
    options.quick |= options.trial
    size = TRIAL if options.trial else QUICK if options.quick else FULL
    if options.rounds:
        size = replace(size, rounds=options.rounds)
    load = os.getloadavg()[0]
    try:
        peers = None if options.no_peers else find_peers(options.peers, PINS)
        options.work.mkdir(parents=True, exist_ok=True)
        name, encoder = ("tiny", TINY) if options.trial else ("MiniLM", MINILM)
        small = Bench(name, encoder, options.work / name.lower(), peers, size)
        found = [small.run()]
        costs = small.costs()
        if not options.quick:
            found.append(Bench("S", BASE, options.base, peers, size).run())
    except BenchmarkError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    if not options.quick:
        _plot(found, costs)
    settings = [
        (
            f"{system()}; {processors()} threads for every way; load average {load:.1f} before; the load "
            f"generator has no machine of its own, and took {max(one.share for one in found):.0%} of a "
            "processor at most"
        ),
        (
            f"{size.rounds} rounds of {size.seconds:g} s a way after {size.warm_up:g} s to warm up, every "
            f"other in the opposite order; {size.half:g} s at half load; medians"
        ),
        (
            f"saturated: {CLIENTS} clients, one text of {TOKENS} tokens a request; half load: requests at "
            "half of that rate by chance (a Poisson process), timed from when they were due"
        ),
        f"ours: {our_versions('onnxruntime', 'fastapi', 'uvicorn', 'numpy')}",
    ]
    if peers:
        theirs = peer_versions(peers, PINS)
        settings.append(f"theirs: {', '.join(f'{k} {v}' for k, v in theirs.items())}")
    goals = [goal for one in found for goal in _goals(one)]
    publish(options, RESULTS, _report(found, costs, goals, settings, options.quick), goals)
    return 0


class Bench:
    """Measures on one size of encoder."""

    def __init__(
        self, name: str, encoder: Encoder, folder: Path, peers: Path | None, size: Size
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._name = name
        self._encoder = encoder
        self._folder = folder
        self._python = peers / "bin" / "python" if peers else None
        self._size = size
        self._threads = processors()
        chance = random.Random(0)  # noqa: S311 - any fixed choice
        self._texts = [" ".join(chance.choices(_WORDS, k=TOKENS - 2)) for _ in range(64)]
        say(f"{name}: set-ups")
        self._setups = Setups(folder, encoder)
        self._merged = self._setups.release(self._setups.sentences()[: size.tasks])

    def run(self) -> Findings:
        """All ways beside each other."""
        found = Findings(name=self._name, tasks=self._size.tasks)
        release = load_release(self._merged.address, engine="onnx", threads=self._threads)
        with self._centra(OURS, self._merged) as ours:
            with ExitStack() as stack:
                ways = [ours]
                if self._python:
                    ways.append(stack.enter_context(self._litserve()))
                    if self._encoder is not BASE:
                        ways.append(stack.enter_context(self._infinity()))
                self._take_turns(found, ways, release)
                for way in ways:
                    self._at_half_load(found, way)
            # These take gigabytes, and so the others have gone.
            del release
            full, number = self._full_models()
            with self._centra(SINGLES, full, self._size.tasks / number) as singles:
                found.models = number
                beside = Findings(name=self._name, tasks=self._size.tasks)
                self._take_turns(beside, [ours, singles], None)
                found.seconds[SINGLES] = beside.seconds[SINGLES]
                found.alone[SINGLES] = beside.alone[SINGLES]
                found.seconds[f"{OURS}, beside {SINGLES}"] = beside.seconds[OURS]
                self._at_half_load(found, singles)
        return found

    def _full_models(self) -> tuple[Setup, int]:
        """A release of full models, and of how many: all of them, or as many as fit in memory."""
        number = self._size.tasks
        layers = number * self._encoder.layers * 12 * self._encoder.hidden**2 * 4
        available = available_memory()
        if available is not None and _LOADED * layers > available:
            number = -(-number // 3)
        return self._setups.release(self._setups.full(number)), number

    def costs(self) -> dict[str, dict[int, float]]:
        """Seconds of a text, saturated, by way and number of tasks."""
        most = max(self._size.numbers)
        hundred = self._setups.hundred()
        found: dict[str, dict[int, float]] = {}
        for name, tasks in (
            ("merged", hundred[:: len(hundred) // most]),
            ("full models", self._setups.full(min(most, self._size.tasks))),
        ):
            setup = self._setups.release(tasks)
            names = sorted(
                setup.manifest.tasks, key=lambda task: setup.manifest.tasks[task].tap_layer
            )
            with self._centra(name, setup) as way:
                found[name] = {}
                for number in (n for n in self._size.numbers if n <= len(names)):
                    say(f"{self._name}: {number} tasks, {name}")
                    # Spread over the taps, with the deepest among them.
                    asked = [names[-1 - i * len(names) // number] for i in range(number)]
                    some = Way(
                        name=name,
                        server=way.server,
                        calls=predict_calls(inputs=self._texts, tasks=asked),
                    )
                    answered = some.ask(self._size.seconds, self._size.warm_up)
                    found[name][number] = 1 / answered.inputs_per_second
        return found

    def _take_turns(self, found: Findings, ways: Sequence[Way], release: Release | None) -> None:
        size = self._size
        for number in range(size.rounds):
            for way in [*ways][:: -1 if number % 2 else 1]:
                say(f"{self._name}: {way.name}, round {number + 1}")
                is_merged = way.name == OURS and release is not None
                alone = self._alone(found, way, release if is_merged else None)
                before = _batches(way.server) if is_merged else (0, 0)
                # What takes seconds for a text is asked by fewer, and until each has had its turns.
                clients = CLIENTS if alone < _SLOW else CLIENTS // 4
                turns = _TURNS * clients * alone if clients < CLIENTS else 0
                answered = way.ask(max(size.seconds, turns), size.warm_up, clients=clients)
                rate = answered.inputs_per_second / way.requests
                found.seconds.setdefault(way.name, []).append(1 / rate)
                if is_merged and release:
                    found.share = max(found.share, answered.processor_share)
                    inputs, batches = _batches(way.server)
                    mean = (inputs - before[0]) / max(1, batches - before[1])
                    found.batches.append(mean)
                    self._offline(found, release, max(1, round(mean)))

    def _alone(self, found: Findings, way: Way, release: Release | None) -> float:
        """Ask a way by one client, in turn with the runtime where that is given; seconds of a request."""
        blocks = _BLOCKS if release else 1
        seconds, warm_up = self._size.seconds / 2 / blocks, self._size.warm_up / 2 / blocks
        medians = []
        for _ in range(blocks):
            latency = way.ask(seconds, warm_up, clients=1).latency
            assert latency
            medians.append(latency.median)
            found.alone.setdefault(way.name, []).append(latency.median * way.requests)
            if release:
                alone = median(self._predict(release, 1, seconds))
                found.alone.setdefault(OFFLINE, []).append(alone)
        return median(medians)

    def _at_half_load(self, found: Findings, way: Way) -> None:
        say(f"{self._name}: {way.name}, half load")
        size, rate = self._size, way.requests / median(found.seconds[way.name])
        found.half[way.name] = way.ask(size.half, size.warm_up, rate=rate / 2, clients=4 * CLIENTS)
        found.memory[way.name] = way.server.memory()
        found.ready[way.name] = way.server.seconds

    def _offline(self, found: Findings, release: Release, batch: int) -> None:
        """The runtime alone, in batches as large as the server's."""
        times = self._predict(release, batch, self._size.seconds)
        found.seconds.setdefault(OFFLINE, []).append(sum(times) / len(times) / batch)

    def _predict(self, release: Release, batch: int, seconds: float) -> list[float]:
        """Seconds of each call of the runtime, for some seconds."""
        chance = random.Random(0)  # noqa: S311 - any fixed choice
        times = []
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            texts = chance.choices(self._texts, k=batch)
            start = time.perf_counter()
            release.predict(texts)
            times.append(time.perf_counter() - start)
        return times

    @contextmanager
    def _centra(self, name: str, setup: Setup, requests: float = 1) -> Iterator[Way]:
        port = free_port()
        command = centra_command(setup.address, port, "--threads", str(self._threads))
        folder = self._folder / "servers" / name.replace(" ", "-").replace(",", "")
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        with running_server(
            command, port, ready="/v1/release", folder=folder, environment=environment
        ) as server:
            calls = predict_calls(inputs=self._texts)
            yield Way(name=name, server=server, calls=calls, requests=requests)

    @contextmanager
    def _litserve(self) -> Iterator[Way]:
        assert self._python
        port = free_port()
        folder = self._folder / "servers" / "litserve"
        command = litserve_command(self._python, self._merged.address, port, self._threads)
        with running_server(
            command, port, ready="/health", folder=folder, environment=peer_environment(folder)
        ) as server:
            yield Way(
                name=LITSERVE, server=server, calls=litserve_calls(self._texts, self._size.tasks)
            )

    @contextmanager
    def _infinity(self) -> Iterator[Way]:
        assert self._python
        port = free_port()
        folder = self._folder / "servers" / "infinity"
        checkpoints = write_checkpoints(
            self._folder / "checkpoints", self._encoder, self._size.tasks
        )
        command = infinity_command(self._python, checkpoints, port)
        with running_server(
            command, port, ready="/health", folder=folder, environment=peer_environment(folder)
        ) as server:
            calls = infinity_calls(self._texts, [path.name for path in checkpoints])
            yield Way(name=INFINITY, server=server, calls=calls, requests=self._size.tasks)


def _batches(server: Server) -> tuple[float, float]:
    """Inputs and batches that our server has computed."""
    return server.metric("centra_batch_inputs_sum"), server.metric("centra_batch_inputs_count")


# Report


def _goals(found: Findings) -> list[Goal]:
    """What the issue of this benchmark asks for."""
    ours, name = found.seconds[OURS], found.name
    least = 0.85 if name == "S" else 0.7
    to_offline = 1 / Comparison.of(ours, found.seconds[OFFLINE]).worse
    beside = found.seconds[f"{OURS}, beside {SINGLES}"]
    to_singles = 1 / Comparison.of(beside, found.seconds[SINGLES]).worse
    pairs = zip(found.alone[OURS], found.alone[OFFLINE], strict=True)
    added = 1000 * median(server - runtime for server, runtime in pairs)
    latency = found.half[OURS].latency
    assert latency
    return [
        Goal.at_least(least, f"{name}: saturated, share of the runtime's own rate", to_offline),
        Goal.at_least(
            10, f"{name}: saturated, times the rate of a full model per task", to_singles
        ),
        Goal.at_most(
            3, f"{name}: half load, 99th percentile in medians", latency.p99 / latency.median
        ),
        Goal.at_most(2, f"{name}: one client, what the server adds, ms", added),
    ]


def _report(
    found: Sequence[Findings],
    costs: Mapping[str, Mapping[int, float]],
    goals: Sequence[Goal],
    settings: Sequence[str],
    quick: bool,  # noqa: FBT001 - as it was given
) -> str:
    body = goal_table(goals)
    for one in found:
        rows = [
            [
                way,
                f"{1 / median(one.seconds[way]):.1f}",
                f"{1000 * median(one.alone[way]):.1f}",
                *_half_columns(one.half.get(way)),
                f"{one.memory[way] / 1e6:.0f}" if way in one.memory else "",
                f"{one.ready[way]:.1f}" if way in one.ready else "",
            ]
            for way in (OURS, OFFLINE, SINGLES, LITSERVE, INFINITY)
            if way in one.alone
        ]
        headers = (
            one.name,
            "texts/s, saturated",
            "one client, ms",
            "half load: median ms",
            "p99 ms",
            "memory, MB",
            "ready after, s",
        )
        mean = sum(one.batches) / len(one.batches)
        scaled = one.models < one.tasks
        body += [
            "",
            (
                f"{one.name}: a text is answered for all tasks; saturated, our server's batches held "
                f"{mean:.0f} inputs in the mean, and the runtime was timed with as many. Of the full "
                f"models {one.models} were served at once"
                + (", as many as fit in memory, and their times are scaled up." if scaled else ".")
            ),
            "",
            *table(headers, rows),
        ]
    numbers = sorted({number for by_number in costs.values() for number in by_number})
    rows = [
        [way, *(f"{1000 * by_number[n]:.1f}" if n in by_number else "" for n in numbers)]
        for way, by_number in costs.items()
    ]
    body += ["", f"{found[0].name}: milliseconds of a text, saturated, by number of tasks:", ""]
    body += table(("", *map(str, numbers)), rows)
    if not quick:
        body += ["", f"![rates, and cost against the number of tasks]({PLOT.name})"]
    return report("A server under load", "serving.py", body, settings)


def _half_columns(found: LoadReport | None) -> tuple[str, str]:
    if found is None or found.latency is None:
        return "", ""
    return f"{1000 * found.latency.median:.1f}", f"{1000 * found.latency.p99:.1f}"


def _plot(found: Sequence[Findings], costs: Mapping[str, Mapping[int, float]]) -> None:
    """Rates by way; what a text costs by the number of its tasks."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    ways = [way for way in (OFFLINE, OURS, LITSERVE, SINGLES, INFINITY) if way in found[0].alone]
    for number, one in enumerate(found):
        shown = [(i, way) for i, way in enumerate(ways) if way in one.seconds]
        left.barh(
            [i + 0.38 * number for i, _ in shown],
            [1 / median(one.seconds[way]) for _, way in shown],
            height=0.36,
            label=one.name,
        )
    left.set_yticks([i + 0.19 for i in range(len(ways))], ways)
    left.invert_yaxis()
    left.set_xscale("log")
    # Between 1 and 100 a log scale names its minor ticks too, one over another.
    left.xaxis.set_minor_formatter(NullFormatter())
    left.set_xlabel(f"texts per second for all {TASKS} tasks, saturated")
    left.legend()
    for way, by_number in costs.items():
        right.plot([*by_number], [1000 * s for s in by_number.values()], marker="o", label=way)
    right.set_xscale("log")
    right.set_yscale("log")
    right.set_xlabel(f"tasks, {found[0].name}")
    right.set_ylabel("milliseconds of a text, saturated")
    right.grid(alpha=0.3)
    right.legend()
    figure.savefig(PLOT, dpi=110)


if __name__ == "__main__":
    sys.exit(main())
