"""``centra bench --url``: a server under load."""

from __future__ import annotations

from functools import wraps
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from centra.errors import DataError, UsageError
from cli.options import DURATION
from cli.output import print_json, print_table, remark, reporting
from cli.plots import require_matplotlib

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import timedelta

    from centra.bench.load import Latencies, LoadReport

__all__ = ["load_options", "ms"]

_OF_LOAD = ("rate", "clients", "duration", "warm_up", "input_file", "token_file")
_OF_RELEASES = ("reference", "threads", "engine", "device", "dtype", "rounds", "singles")
_LATE = 0.005
"""Seconds: a generator that is later at the 99th percentile is said to be late."""
_BUSY = 0.8
"""Of a processor: a generator that takes more may measure itself."""


def load_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a load; with ``--url`` the load takes the place of the command."""

    @wraps(command)
    def either(
        reference: str | None,
        *,
        url: str | None,
        rate: float | None,
        clients: int,
        duration: timedelta,
        warm_up: timedelta,
        input_file: Path | None,
        token_file: Path | None,
        **options: Any,
    ) -> None:
        if url is None:
            _refuse(_OF_LOAD, "is about a server: name it with --url")
            command(reference, **options)
            return
        _refuse(_OF_RELEASES, "is about a release that is loaded here, --url about a server")
        _bench_load(
            url,
            rate=rate,
            clients=clients,
            duration=duration,
            warm_up=warm_up,
            input_file=input_file,
            token_file=token_file,
            batches=options["batches"] if _is_given("batches") else (1,),
            lengths=options["lengths"] or (16,),
            tasks=options["tasks"],
            plot=options["plot"],
            as_json=options["as_json"],
        )

    for option in (
        click.option(
            "--token-file",
            type=click.Path(exists=True, path_type=Path, dir_okay=False),
            metavar="FILE",
            help="With --url: a file that holds the bearer token.",
        ),
        click.option(
            "--input",
            "input_file",
            type=click.Path(exists=True, path_type=Path, dir_okay=False),
            metavar="FILE",
            help="With --url: what is asked: .jsonl, .json, .csv, .tsv, .parquet, .conll, or .txt with a text "
            "a line; rows have 'text' (and 'text_pair') or 'tokens', and perhaps 'tasks'; default texts "
            "that are made up.",
        ),
        click.option(
            "--warm-up",
            type=DURATION,
            default="2s",
            show_default=True,
            help="With --url: for how long before, of which nothing counts.",
        ),
        click.option(
            "--for",
            "duration",
            type=DURATION,
            default="10s",
            show_default=True,
            help="With --url: for how long.",
        ),
        click.option(
            "--clients",
            type=click.IntRange(min=1),
            default=16,
            show_default=True,
            help="With --url: the most connections, each with one request at a time.",
        ),
        click.option(
            "--rate",
            type=click.FloatRange(min=0, min_open=True),
            help="With --url: requests per second, at moments that are drawn by chance (a Poisson "
            "process) and kept whatever the answers do. Default as fast as the clients can: each "
            "sends when it has its answer.",
        ),
        click.option(
            "--url",
            metavar="URL",
            help="Time a server instead, under load: http://HOST:PORT. --length and --batch are then "
            "drawn by chance, default about 16 tokens and one input.",
        ),
    ):
        either = option(either)
    return either


def ms(seconds: float) -> str:
    """A time in milliseconds."""
    return f"{1000 * seconds:,.2f}"


def _is_given(name: str) -> bool:
    source = click.get_current_context().get_parameter_source(name)
    return source not in (ParameterSource.DEFAULT, ParameterSource.DEFAULT_MAP, None)


def _refuse(names: Sequence[str], why: str) -> None:
    """Refuse options that do not go with the others."""
    parameters = {
        parameter.name: parameter for parameter in click.get_current_context().command.params
    }
    for name in names:
        if _is_given(name) and click.get_current_context().params[name] is not None:
            parameter = parameters[name]
            shown = parameter.opts[0] if isinstance(parameter, click.Option) else "RELEASE"
            raise click.UsageError(f"{shown} {why}")


def _bench_load(
    url: str,
    *,
    rate: float | None,
    clients: int,
    duration: timedelta,
    warm_up: timedelta,
    input_file: Path | None,
    token_file: Path | None,
    batches: tuple[int, ...],
    lengths: tuple[int, ...],
    tasks: tuple[str, ...],
    plot: Path | None,
    as_json: bool,
) -> None:
    missing = [name for name in ("h11", "hdrh") if find_spec(name) is None]
    if missing:
        raise UsageError("--url needs an extra: pip install 'centra[load]'")
    import asyncio

    from centra.bench.load import Load, Target, predict_calls, run_load
    from centra.data.readers import read_inputs

    if not duration:
        raise click.UsageError("--for: nothing can be measured in no time")
    require_matplotlib(plot)
    token = token_file.read_text(encoding="utf-8").strip() if token_file else None
    target = Target.parse(url, token=token)
    inputs = read_inputs(input_file) if input_file else None
    if inputs is not None and not inputs:
        raise DataError(f"{input_file} holds no inputs")
    calls = predict_calls(inputs=inputs, lengths=lengths, batches=batches, tasks=tasks)
    load = Load(
        seconds=duration.total_seconds(),
        clients=clients,
        rate=rate,
        warm_up=warm_up.total_seconds(),
    )
    with reporting() as progress:
        report = asyncio.run(run_load(target, calls, load, progress=progress))
    if as_json:
        from registry.documents.load import BenchLoad

        print_json(BenchLoad.of(report))
    else:
        _print(report)
    _warn(report)
    if plot is not None:
        from cli.bench_plot import write_load_png

        write_load_png(plot, report)


def _print(report: LoadReport) -> None:
    clients = f"{report.clients} client{'' if report.clients == 1 else 's'}"
    way = (
        f"closed loop: {clients}, each of which sends when it has its answer"
        if report.rate is None
        else f"open loop: {report.rate:g} requests per second, a Poisson process; at most {clients}"
    )
    click.echo(f"{report.url}, {report.seconds:.1f} s; {way}\n")
    print_table(
        ("requests", "number", "share"),
        [
            (name, str(number), f"{number / max(1, report.planned):.2%}")
            for name, number in (
                ("due" if report.rate is not None else "sent", report.planned),
                ("answered", report.answered),
                ("rejected (429)", report.rejected),
                *((f"failed ({what})", count) for what, count in report.errors.items()),
                ("never sent", report.unsent),
            )
            if number or name == "answered"
        ],
    )
    click.echo(
        f"\nanswered per second: {report.requests_per_second:,.1f} requests, "
        f"{report.inputs_per_second:,.1f} inputs, {report.answers_per_second:,.1f} answers\n"
    )
    rows = [("from when it was due", report.latency)] if report.latency else []
    rows += [(f"  {name}", part) for name, part in report.parts.items()]
    rows += [("sent late", report.lateness)] if report.lateness else []
    print_table(
        ("milliseconds", "median", "p90", "p99", "p99.9", "max"),
        [(name, *_times(found)) for name, found in rows],
    )
    click.echo()
    if report.rate is not None:
        click.echo(f"{report.waited} requests waited for a client that was free")
    click.echo(f"this command took {report.processor_share:.0%} of a processor")
    for digest, count in report.releases.items():
        click.echo(f"release {digest[:12]} answered {count}")


def _times(found: Latencies) -> tuple[str, ...]:
    return tuple(ms(t) for t in (found.median, found.p90, found.p99, found.p99_9, found.max))


def _warn(report: LoadReport) -> None:
    """Say what makes the figures worth less."""
    if report.first_error is not None:
        remark(f"the first that was not answered: {report.first_error}")
    if report.lateness is not None and report.lateness.p99 > _LATE:
        remark(
            f"this command sent late by itself, {ms(report.lateness.p99)} ms at the 99th percentile: "
            "that is in the latencies, too. Give it a processor of its own, or a lower rate"
        )
    if report.processor_share > _BUSY:
        remark(
            "this command may have measured itself, for it took most of a processor: run several of "
            "them, on other machines"
        )
