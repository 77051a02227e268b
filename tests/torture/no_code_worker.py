"""Runs commands in folders that somebody else filled, and tells what of them was executed.

A process of its own: the hook that watches cannot be taken off again. Each line on standard input is
a JSON object with ``folder`` and ``words``; each line on standard output is what came of it.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from click.testing import CliRunner

import _centra_command  # noqa: F401 - as the program does, before anything else
import centra.tokenization.comparison
from centra.tokenization.sample_texts import sample_inputs
from cli import main

WATCHED = ""
"""The folder whose files must not be run."""
SEEN: list[str] = []
TOKENIZERS = [
    sys.executable,
    "-P",
    str(Path(centra.tokenization.comparison.__file__).with_name("child.py")),
]
"""What loads a tokenizer from outside, in a process of its own."""
PROGRAMS = (".py", ".pyc", ".bin", ".pt", ".pkl", ".pth")


def inside(path: object) -> bool:
    """Whether this is a path into the folder, from wherever."""
    if not WATCHED or not isinstance(path, str | bytes | os.PathLike):
        return False
    name = os.fsdecode(path)
    return (
        bool(name)
        and not name.startswith("<")
        and os.path.realpath(name).startswith(WATCHED + os.sep)
    )


def watch(event: str, args: tuple[object, ...]) -> None:
    """The hook: Python tells it all that it opens, imports, compiles and runs."""
    if not WATCHED:
        return
    match event, args:
        case "import", (name, file, *_) if inside(file):
            SEEN.append(f"import {name}")
        case "exec", (code, *_) if inside(getattr(code, "co_filename", None)):
            SEEN.append(f"exec {code.co_filename}")  # type: ignore[attr-defined]
        case "compile", (_, file, *_) if inside(file):
            SEEN.append(f"compile {file!r}")
        case "open", (path, *_) if inside(path) and os.fsdecode(path).endswith(PROGRAMS):  # type: ignore[arg-type]
            SEEN.append(f"open {path!r}")
        case "subprocess.Popen", (_, words, *_) if list(words)[:3] == TOKENIZERS:  # type: ignore[call-overload]
            pass
        case (("pickle.find_class" | "os.system" | "os.exec" | "subprocess.Popen" as what), _):
            SEEN.append(f"{what} {args[:2]!r}")


def run(folder: str, words: list[str]) -> dict[str, object]:
    """Run a command with a folder as the current one."""
    global WATCHED  # noqa: PLW0603 - the hook has no other way to know
    os.chdir(folder)
    SEEN.clear()
    WATCHED = os.path.realpath(folder)
    try:
        result = CliRunner().invoke(main, words)
    finally:
        WATCHED = ""
    fault = (
        None
        if result.exception is None or isinstance(result.exception, SystemExit)
        else (f"{type(result.exception).__name__}: {result.exception}")
    )
    modules = [
        name
        for name, module in list(sys.modules.items())
        if str(getattr(module, "__file__", "") or "").startswith(os.path.realpath(folder) + os.sep)
    ]
    return {
        "code": result.exit_code,
        "says": result.stderr[-2000:],
        "fault": fault,
        "seen": SEEN[:10],
        "modules": modules,
    }


# Tokenizers are compared on each tenth of the made-up texts, which is quick.
centra.tokenization.comparison.sample_inputs = lambda *args: sample_inputs(*args)[::10]  # type: ignore[attr-defined]
sys.addaudithook(watch)
for line in sys.stdin:
    print(json.dumps(run(**json.loads(line))), flush=True)
