"""A Dockerfile, read into stages of instructions, and a build's list of ignored files."""

from __future__ import annotations

import fnmatch
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

KNOWN = {
    *("ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM"),
    *("HEALTHCHECK", "RUN", "USER", "VOLUME", "WORKDIR"),
}


@dataclass(frozen=True, kw_only=True)
class Instruction:
    """One instruction; what continues over several lines is one."""

    name: str
    flags: list[str]
    """Such as ``--from=wheel``."""
    text: str
    """What comes behind the flags."""

    def flag(self, name: str) -> str | None:
        """The value of a flag."""
        found = [flag.partition("=")[2] for flag in self.flags if flag.startswith(f"--{name}=")]
        return found[-1] if found else None

    @property
    def words(self) -> list[str]:
        """The arguments: of the exec form, or separated by blanks."""
        return json.loads(self.text) if self.text.startswith("[") else self.text.split()

    @property
    def is_exec(self) -> bool:
        """Whether no shell is between."""
        return self.text.startswith("[")

    @property
    def pairs(self) -> dict[str, str]:
        """The variables of ENV."""
        found = re.findall(r'(\w+)=("[^"]*"|\S*)', self.text)
        return {name: value.strip('"') for name, value in found}


@dataclass(kw_only=True)
class Stage:
    """From one FROM to the next."""

    base: str
    name: str
    instructions: list[Instruction] = field(default_factory=list)

    def all(self, name: str) -> list[Instruction]:
        """The instructions of a name."""
        return [one for one in self.instructions if one.name == name]

    def last(self, name: str) -> Instruction:
        """The one that holds."""
        return self.all(name)[-1]


def read_stages(path: Path) -> tuple[dict[str, str], dict[str, Stage]]:
    """The arguments before the first stage, with their defaults, and the stages by name.

    Raises:
        ValueError: an instruction that is not known here.
    """
    arguments: dict[str, str] = {}
    stages: dict[str, Stage] = {}
    for instruction in _instructions(path.read_text()):
        if instruction.name not in KNOWN:
            raise ValueError(f"{path}: {instruction.name} {instruction.text}")
        if instruction.name == "FROM":
            base, _, name = re.split(r"\s+(as)\s+", instruction.text, flags=re.IGNORECASE)
            stages[name] = Stage(base=base, name=name)
        elif not stages:
            arguments |= instruction.pairs
        else:
            stages[[*stages][-1]].instructions.append(instruction)
    return arguments, stages


def _instructions(text: str) -> list[Instruction]:
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    return [_instruction(line) for line in joined.splitlines() if line.strip()]


def _instruction(line: str) -> Instruction:
    name, _, rest = line.strip().partition(" ")
    flags = []
    while match := re.match(r"\s*(--[a-z-]+=\S+)", rest):
        flags.append(match[1])
        rest = rest[match.end() :]
    return Instruction(name=name.upper(), flags=flags, text=" ".join(rest.split()))


def is_sent(name: str, ignore: Path) -> bool:
    """Whether a file of the context reaches the build: the last line of the list that fits decides."""
    sent = True
    for line in ignore.read_text().split():
        pattern = line.removeprefix("!")
        if any(_fits(part, pattern) for part in (name, *_parents(name))):
            sent = line.startswith("!")
    return sent


def _parents(name: str) -> list[str]:
    parts = name.split("/")
    return ["/".join(parts[:end]) for end in range(1, len(parts))]


def _fits(name: str, pattern: str) -> bool:
    if pattern.startswith("**/"):
        return fnmatch.fnmatch(name.rpartition("/")[2], pattern[3:])
    return ("/" not in name and pattern == "*") or name == pattern
