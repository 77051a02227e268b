"""docs/tutorial.md as a reader follows it: every command, in its order, in an empty folder."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from tests.support import ROOT

if TYPE_CHECKING:
    from pathlib import Path

TEXT = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```sh\n(.*?)^```(?:\n\n```text\n(.*?)^```)?", TEXT, re.MULTILINE | re.DOTALL)
"""Commands, and what the page shows of their output."""
MARK = "=== block"


@pytest.fixture
def checkout(tmp_path: Path, minilm_folder: Path, warm_python: Path) -> Path:
    """What a reader has: the examples, the model as the hub has it, and ``centra`` on the path."""
    hub = tmp_path / "build" / "tutorial" / "sentence-transformers"
    hub.mkdir(parents=True)
    (hub / "all-MiniLM-L6-v2").symlink_to(minilm_folder)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    command = tmp_path / "bin" / "centra"
    command.parent.mkdir()
    # A server gets signals, which a fork of the warm Python does not, and imports nothing heavy.
    command.write_text(
        f"""#!/bin/sh
case "$1" in serve) python={sys.executable} ;; *) python={warm_python} ;; esac
exec $python -m cli "$@"
"""
    )
    command.chmod(0o755)
    return tmp_path


def free_port() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


@pytest.mark.timeout(900)  # Some thirty processes, three of which train.
def test_a_reader_who_follows_it_gets_there(checkout: Path) -> None:
    """The page's own commands, in one shell; only the port is one that nobody else has."""
    script = "".join(
        f"printf '\\n%s\\n' '{MARK} {number}'\n{commands}"
        for number, (commands, _) in enumerate(BLOCKS)
    )
    (checkout / "script").write_text(script.replace("8080", free_port()))
    given = {name: said for name, said in os.environ.items() if not name.startswith("CENTRA_")}
    given["PATH"] = f"{checkout / 'bin'}{os.pathsep}{given['PATH']}"
    given |= {"CENTRA_CACHE": str(checkout / "cache"), "PYTHONPATH": str(ROOT)}
    with (checkout / "output").open("wb") as output:
        process = subprocess.Popen(
            ["bash", "-e", "-o", "pipefail", "script"],
            cwd=checkout,
            env=given,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait()
        finally:
            with suppress(ProcessLookupError):  # The server, where the shell did not come so far.
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    printed = (checkout / "output").read_text()
    assert code == 0, printed
    outputs = re.split(rf"^{MARK} \d+\n", printed, flags=re.MULTILINE)[1:]
    for (_, shown), said in zip(BLOCKS, outputs, strict=True):
        for line in shown.splitlines():
            assert line in said.splitlines()
