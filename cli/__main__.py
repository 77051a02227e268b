"""``python -m cli`` is ``centra``."""

from _centra_command import run

run()
