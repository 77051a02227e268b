"""``benchmarks/RELIABILITY.md``: what was attacked, how often, and what became of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.tools.common import our_versions, system, table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.torture.__main__ import Result
    from tests.torture.losses import Loss

__all__ = ["text"]

_OPENING = """\
# Reliability

What `make torture` did to Centra, and what it lost. Every command that changes something is attacked on SQLite
with a folder and on PostgreSQL with an S3 server; `tests/torture/commands.py` lists them.
"""

_PARTS = """\
## What each part does

- **Crashes**: a first run counts the system calls that change a file of the registry, its store and its output, or
  send to a server. Then the command is killed (SIGKILL) at each: instead of it, after half of its bytes, after it. A
  round is one kill and all that is checked after it.
- **Random kills**: the installed program is killed at a random moment.
- **Power cuts**: the store and all output lie on an ext4 image, the database elsewhere. What the image had received
  when the command said that it was done, or at one of its calls, is mounted in its place.
- **Races**: 32 processes of all commands, of teams whose clocks are 5 minutes ahead and 7 behind. One in seven is
  killed at some call, and garbage collection runs without any grace.
- **Store faults**: a proxy before the S3 server answers with errors, late, short, flipped, stale, or not at all.
- **Database restarts**: PostgreSQL ends every session just before a command sends something.
- **Full disks**: from some call on nothing more can be written; the first write goes in half.
- **Hostile input**: every parser of bytes from outside; time and memory are bounded by the size of the input.
- **No code from data**: no command ever imports a file of what it is given.
- **History**: 200 tasks with 2,000 versions and 5,000 releases; what a change costs stays with the change.

After a kill, a cut, a restart or a full disk: `doctor` names only what repeating the command mends; all that was there
is there, whole, and the audit log's chain holds; the command, repeated, ends well, with every row, blob, pointer and
file as after a run that nothing disturbed; repeated again it changes nothing; `gc` leaves what is needed and nothing
else. After a race: no version is lost or doubled, numbers have no gaps, `latest` never went back, no task was changed
by another team without `--force` in the log, and every pointer, release and row is what the log says.
"""

_NOT_PROMISED = """\
## What is not promised

- Whoever administers the database can rewrite it, and the log with it as a whole. What shows it is a digest that was
  kept elsewhere: `centra audit verify` prints one. Triggers and chains stop mistakes and users, not administrators.
- Whoever can write to the store can remove or replace blobs and pointers. Replaced bytes are refused when they are
  read, because their digest is their name; removed ones are lost unless there is a backup. A pointer can be set to an
  older release that was properly signed.
- Whoever has a signing key can sign anything. Nothing shows that a key was stolen.
- A disk or a server that says that it has stored something and has not is beyond what a program can mend: file systems
  without barriers, `fsync = off`, volatile write caches.
- A rollback that is repeated without `--expect-revision` after it has done everything goes back one release more: it
  is the next rollback.
- SQLite and a folder on a network file system rest on that file system's locks and renames.
- A restored backup of the database knows nothing of what came later: see *Backup and restore* in `docs/operations.md`.
"""

_AGAIN = """\
- `make torture TORTURE_ARGS="--hours 1"` does it again; each row by itself with its command. The same seed makes the
  same choices, as many as the time allows."""


def text(
    results: Sequence[Result], losses: Sequence[Loss], seconds: float, load: float, seed: int
) -> str:
    """The page."""
    return "\n".join(
        [
            _OPENING,
            f"**Losses: {len(losses) or 'none'}**, in {seconds / 60:,.0f} minutes.\n",
            *table(("part", "minutes", "what was done", "losses", "again"), map(_row, results)),
            "",
            *_lost(losses),
            _PARTS,
            _NOT_PROMISED,
            "## Settings\n",
            f"- {system()}; load average {load:.1f} before",
            f"- seed {seed}",
            f"- {our_versions('sqlalchemy', 'psycopg', 'boto3', 'torch', 'safetensors')}",
            _AGAIN,
            "",
        ]
    )


def _row(result: Result) -> tuple[str, ...]:
    counts = "; ".join(f"{name} {count:,}" for name, count in result.counts.items() if count)
    return (
        result.part,
        f"{result.seconds / 60:.0f}",
        f"not done: {result.not_done}" if result.not_done else counts,
        str(result.losses),
        f"`{result.command}`",
    )


def _lost(losses: Sequence[Loss]) -> Iterator[str]:
    if losses:
        yield "## Losses\n"
    for loss in losses:
        yield f"- {' '.join(loss.what.split())[:600]}; again: `{loss.repeat}`"
    if losses:
        yield ""
