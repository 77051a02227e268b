"""What the serving image installs, worked out from what is installed here.

``python -m tests.deploy.requirements > examples/deploy/requirements-serve.txt`` writes it anew.
"""

from __future__ import annotations

import re
import tomllib
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support import ROOT

FILE = ROOT / "examples" / "deploy" / "requirements-serve.txt"
EXTRAS = ("serve", "sign", "trace")
"""Of Centra's own: to answer, to check signatures (``--key``), to send traces."""
LEFT_OUT = {
    "alembic": "the database, which no server opens",
    "psycopg": "the database",
    "sqlalchemy": "the database",
    "torch": "training, and GPUs (Dockerfile.gpu)",
    "transformers": "training, and what is imported from it",
    "huggingface-hub": "tokenizers calls it to download, which no server does",
}

CONSTRAINTS = dict(
    re.findall(r"^([a-z0-9-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
)
"""The versions that set-up installs."""

HEAD = """\
# What a server needs, pinned; the Dockerfile installs exactly this, with --no-deps.
# Written by: python -m tests.deploy.requirements (the versions are constraints.txt's).
# Left out of what Centra and these packages require:
"""


def declared() -> list[Requirement]:
    """What ``pyproject.toml`` asks of a server: the base and the extras, without what is left out."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [project["optional-dependencies"][name] for name in EXTRAS]
    found = map(Requirement, sum(extras, project["dependencies"]))
    return [one for one in found if wanted(one, set())]


def wanted(requirement: Requirement, extras: set[str]) -> bool:
    """Whether it is for Linux, for one of some extras, and not left out."""
    marker = requirement.marker
    here = marker is None or any(marker.evaluate({"extra": extra}) for extra in {"", *extras})
    return here and canonicalize_name(requirement.name) not in LEFT_OUT


def needed_by(name: str, extras: set[str]) -> list[Requirement]:
    """What an installed distribution asks for, without what is left out."""
    found = map(Requirement, distribution(name).requires or [])
    return [one for one in found if wanted(one, extras)]


def closure() -> dict[str, str]:
    """Every distribution that a server needs, with the version that is installed here."""
    versions: dict[str, str] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = declared()
    while waiting:
        requirement = waiting.pop()
        name, extras = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if (name, extras) not in seen:
            seen.add((name, extras))
            versions[name] = distribution(name).version
            waiting += needed_by(name, set(extras))
    return versions


def pinned() -> dict[str, str]:
    """Name and version of each line of the file."""
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)$", FILE.read_text(), re.MULTILINE))


def installed() -> dict[str, str]:
    """Of what is pinned, what is installed here, in whatever version; newer ones may need less."""
    versions = {}
    for name in pinned():
        with suppress(PackageNotFoundError):
            versions[name] = distribution(name).version
    return versions


def page() -> str:
    """The file's text."""
    head = HEAD + "".join(f"#   {name}: {reason}\n" for name, reason in LEFT_OUT.items())
    return head + "".join(f"{name}=={version}\n" for name, version in sorted(closure().items()))


if __name__ == "__main__":
    print(page(), end="")
