"""``python -m cli`` is ``centra``."""

from cli import run

run()
