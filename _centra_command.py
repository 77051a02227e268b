"""The ``centra`` program, which what lies around it cannot change.

``cli``, ``registry``, ``centra`` and ``migrations`` are names that teams give to files of their own,
and Python looks on PYTHONPATH, and sometimes in the working folder, before it looks at what is
installed. Importing this module, whose name nobody else has, settles for the process that our four
packages are those beside it, that what is installed comes before PYTHONPATH, and that the working
folder counts for nothing. Processes that are started for training import it, too, and first.
"""

from __future__ import annotations

import os
import sys

__all__ = ["prepare_worker", "run"]

_HERE = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 - pathlib is imported later
_OWN = ("centra", "cli", "migrations", "registry")


def run() -> None:
    """The program."""
    from cli import run

    run()


def prepare_worker() -> None:
    """Nothing more: importing this module has done it. For Ray, whose workers call a function first."""


def _order(path: list[str], named: list[str], library: str) -> list[str]:
    """A search path with what is installed first, then what PYTHONPATH names, and nothing else.

    Args:
        path: as Python has made it: the script's or the working folder, PYTHONPATH, then the
            standard library and whatever is installed.
        named: the folders that PYTHONPATH names.
        library: the folder of the standard library.
    """
    if library not in path:
        return path
    installed = path[path.index(library) :]
    return installed + [folder for folder in named if folder not in installed]


def _settle() -> None:
    """Put the search path in order."""
    given = "" if sys.flags.ignore_environment else os.environ.get("PYTHONPATH", "")
    named = [os.path.abspath(folder) for folder in given.split(os.pathsep) if folder]  # noqa: PTH100
    sys.path[:] = _order(sys.path, named, os.path.dirname(os.__file__))  # noqa: PTH120


_settle()

# Only now, so that these are the standard library's own.
from importlib.util import spec_from_file_location  # noqa: E402
from typing import TYPE_CHECKING  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType


class _Beside:
    """Finds our packages where this module is."""

    @staticmethod
    def find_spec(
        name: str, _path: Sequence[str] | None = None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The package of one of our names; None for all others."""
        if name not in _OWN:
            return None
        _settle()  # Ray puts the working folder first again, before its workers import anything.
        folder = f"{_HERE}{os.sep}{name}"
        return spec_from_file_location(
            name, f"{folder}{os.sep}__init__.py", submodule_search_locations=[folder]
        )


def _is_foreign(name: str) -> bool:
    """Whether a module has one of our names, but was imported from elsewhere, e.g. by a start-up file."""
    file = getattr(sys.modules[name], "__file__", None) or ""
    return name.partition(".")[0] in _OWN and not file.startswith(f"{_HERE}{os.sep}")


for _name in [name for name in sys.modules if _is_foreign(name)]:
    del sys.modules[_name]
sys.meta_path.insert(0, _Beside)
