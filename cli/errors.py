"""What the command line makes of the library's errors: an exit code, and what to do here and now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from centra.errors import (
    CentraError,
    ConflictError,
    NotAllowedError,
    NotFoundError,
    UsageError,
    VerificationError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["EXIT_CODES", "HINTS", "NOTICES", "WRONG_STORE", "exit_code", "gate_hint", "message"]

EXIT_CODES: dict[type[CentraError], int] = {
    CentraError: 1,
    UsageError: 2,
    NotFoundError: 3,
    NotAllowedError: 4,
    ConflictError: 5,
    VerificationError: 6,
}
"""By the branch of the tree that an error belongs to."""

NOTICES = {
    "data-warnings": "all of it: centra data check DIR",
    "input-assumed": "--input pair says otherwise",
    "kind-assumed": "--kind multilabel says so",
    "number-classes": "--kind regression says otherwise, --labels FILE names them",
    "number-labels": "--labels FILE names them",
    "placeholder-labels": "--labels FILE gives names",
}
"""What to do about a notice, by its code."""


def _audit_hints(data: Mapping[str, Any]) -> str:
    """What can be done about a log that is not as it was written."""
    hints = {
        "witnesses": "If the database was restored, say so: centra audit accept",
        "guards": "What is missing or altered comes back with: centra audit guard",
    }
    return "\n".join(text for finding, text in hints.items() if finding in data["findings"])


def _not_owner(data: Mapping[str, Any]) -> str:
    ask = "Ask that team, or repeat with --force, which the audit log will show."
    return ask if data["actor"] else f"Set CENTRA_ACTOR={data['team']}/YOU. {ask}"


def _version_not_in_force(data: Mapping[str, Any]) -> str:
    steps = [f"centra task restore {data['task']}"] if data["retired"] else []
    if data["current"] != data["version"]:
        steps.append(f"centra task pin {data['task']}@{data['version']}")
    return f"To change that: {', then '.join(steps)}"


def _unpublished(data: Mapping[str, Any]) -> str:
    expected = data["repeat_expecting"]
    again = "Repeat the command" + (f" with --expect-revision {expected}" if expected else "")
    return f"{again}, or: centra channel sync {data['channel']}"


def _foreign_tasks(data: Mapping[str, Any]) -> str:
    releasers, channel = ", ".join(data["releasers"]), data["channel"]
    ask = (
        f"ask who may change every team's tasks there ({releasers})"
        if releasers
        else f"name 'releasers' of {channel} in the policy, who may change every team's tasks"
    )
    return (
        ("" if data["actor"] else "Say who you are: set CENTRA_ACTOR=TEAM/YOU\n")
        + f"Let each team ship its own; or {ask}; or repeat with --force, which the audit log will "
        "show."
    )


def _gates_failed(data: Mapping[str, Any]) -> str:
    hints = dict.fromkeys(gate_hint(remedy["code"], remedy) for remedy in data["remedies"])
    lines = [f"{hint[0].upper()}{hint[1:]}" for hint in hints]
    if change := data["unpublished"]:
        words = [f"--set {reference}" for reference in change["replace"]]
        words += [f"--remove {task}" for task in change["remove"]]
        lines.append(
            "Nothing was published; to test it as a release of its own: "
            f"centra compose --base {change['base']} {' '.join(words)} --release"
        )
    return "\n".join(lines)


_GATE_HINTS = {
    "accept-redefined": "say that callers are ready for it: --accept-redefined",
    "measure": "run: centra release evaluate {release} --task {task} --data FILE",
    "name-data": (
        "name the fingerprint that 'centra release evaluate {release} --task {task} --data FILE' "
        "prints"
    ),
}


def gate_hint(code: str, data: Mapping[str, Any]) -> str:
    """What would let a gate pass; see :class:`registry.rules.gates.Remedy`."""
    return _GATE_HINTS[code].format_map(data)


HINTS: dict[str, str | Callable[[Mapping[str, Any]], str]] = {
    # Setup: settings, database, caches
    "cache-not-writable": "Or set CENTRA_CACHE to another folder.",
    "database-empty": "Run: centra db upgrade",
    "database-missing": "Run: centra db upgrade",
    "database-older": "Run: centra db upgrade",
    "feature-cache-not-writable": (
        "Give another folder in CENTRA_CACHE, or switch it off: --feature-cache off"
    ),
    "oci-not-allowed": "Log in: docker login {host}",
    "registry-not-configured": ("Run 'centra init', or set CENTRA_DATABASE_URL and CENTRA_STORE."),
    # The store
    "blobs-not-copied": "To find out who needs them: centra doctor",
    "store-document-unreadable": "Or remove it, and then: centra store adopt",
    "store-incomplete": "To take it all the same: centra store adopt --incomplete",
    "store-moved-meanwhile": "See: centra doctor",
    # Backbones
    "backbone-in-use": (
        "For each task: centra task update NAME FILE; then promote a release that does without it"
    ),
    "backbone-not-found": (
        "See: centra backbone list, or register it: centra backbone register NAME FOLDER_OR_HUB_NAME"
    ),
    "backbone-retired": "To bring it back: centra backbone restore {backbone}",
    "backbone-unreadable": (
        "To go on, register it again from its source: centra backbone register {name} SOURCE"
    ),
    # Tasks and their versions
    "contract-changed": "If its callers are ready for that: centra task redefine {task} FILE",
    "contract-unchanged": "Use: centra task update {task} FILE",
    "not-a-module": (
        "For a Hugging Face checkpoint give its folder; 'centra train' makes modules."
    ),
    "not-owner": _not_owner,
    "task-exists": (
        "For new weights with the same labels: centra task update {task} FILE\n"
        "For another label set, kind or input: centra task redefine {task} FILE"
    ),
    "task-not-found": "See: centra task list",
    "task-retired": "First: centra task restore {task}",
    "team-missing": "Say which team owns the task: --team TEAM",
    "version-not-in-force": _version_not_in_force,
    # Data and training
    "no-column": "Say which it is: --column FIELD=NAME",
    "no-label-column": "Say which it is: --column label=NAME, or for lists of labels or tags labels=NAME",
    "no-split": "Say which it is: --split dev=NAME, --split train=NAME",
    "no-text-column": "Say which it is: --column text=NAME, or for lists of words tokens=NAME",
    "output-is-teacher": "Name another file: --output FILE",
    "teacher-is-folder": "Any checkpoint teaches: centra fit RECIPE.toml --teacher CHECKPOINT. One of this backbone "
    "becomes a module: centra task register NAME CHECKPOINT",
    "several-files": "Say which: --split dev=FILE, --split train=FILE",
    "undivided-data": "Make a dev split: centra data split DATA --output FOLDER",
    "unknown-number": "If these are values and not classes: --kind regression",
    "unreadable-text": "Say which encoding it is in: --encoding NAME, for example latin-1",
    "unnamed-tags": "Give their names, one a line in their order: --labels FILE",
    # Releases
    "export-of-two-backbones": "centra task export NAME --format FORMAT --output FOLDER",
    "format-of-one-task": "centra task export NAME --format {format} --output FOLDER",
    "key-encrypted": "Say which variable holds its passphrase: --passphrase-env",
    "live-set-changing": "Repeat the command.",
    "no-base": ("Compose it anew: centra compose --base {serving} --set TASK@VERSION --release"),
    "no-default-channel": "See: centra release list, or publish one: centra compose --release",
    "release-not-found": "See: centra release list, centra channel list",
    "separable": "Without it: centra compose --remove {task} --release",
    # Serving
    "no-tokens": "Make it: centra token add NAME FILE",
    "port-in-use": "Take another: --port 0 takes any that is free, and says which.",
    "tls-incomplete": "Give both: --tls-cert FILE --tls-key FILE",
    # Files of answers
    "cluster-too-small": "Give a worker less: --worker-cpus, --worker-gpus",
    # Channels and their pointers
    "channel-has-rules": "Use: centra promote {release} --to {channel}, or centra rollback {channel}",
    "channel-moved": "Look again: centra channel history {channel}",
    "channel-not-found": "See: centra channel list",
    "never-served": (
        "See: centra channel history {channel}, or promote it: centra promote {release} --to {channel}"
    ),
    "pointer-of-another-channel": "Publish the right one: centra channel sync {channel}",
    "pointer-unreadable": (
        "To go on, run 'centra channel sync {channel}'; or remove it, if nothing follows it"
    ),
    "reserved-channel": "It moves by: centra compose --release",
    "unpublished": _unpublished,
    # Promotion and the policy
    "fingerprint-expected": "'centra release evaluate' prints the fingerprint.",
    "foreign-tasks": _foreign_tasks,
    "gates-failed": _gates_failed,
    "no-policy": "See: centra policy apply",
    "not-an-admin": "Ask them, or repeat with --force, which the audit log will show.",
    "policy-not-applied": "First: centra policy apply",
    "policy-version-not-found": "See: centra policy history",
    "stale-release": (
        "Repeat with --rebase to take the change onto what is served, or go back with: centra rollback "
        "{channel}. Or replace what is served with --force, which the audit log will show."
    ),
    "unrelated-release": (
        "Compose what you want of it onto what is served: centra compose --base {channel} --set "
        "TASK@VERSION --release. Or replace what is served with --force, which the audit log will show."
    ),
    # Tasks and backbones
    "class-not-transformers": "Or train the task on its data: centra train",
    "crf-unplaced": "Train the task on its data: centra train --crf",
    "kind-must-be-declared": "Say which: --kind multilabel or --kind regression",
    "labels-unusable": "Or give the labels with --labels FILE.",
    "no-backbone": "centra backbone register NAME SOURCE",
    "tensor-unplaced": "Or train the task on its data: centra train",
    # The log
    "audit-log": _audit_hints,
    "invalid-witness": "'centra audit verify' prints it.",
}
"""What to do about an error, by its code: a template for its data, or what makes a text of them."""

WRONG_STORE = {
    "store-in-use": (
        "correct the address; or where nobody else writes to this store: centra store adopt"
    ),
    "store-is-copy": (
        "set the store to the one that the copy was made of; or where the copy is to take its place: "
        "centra store adopt"
    ),
    "store-is-empty": (
        "mount the store, or correct its address; where it is lost, restore it, or make a copy of it "
        "the store: centra store adopt"
    ),
    "store-lacks-blobs": (
        "correct the address; or where it is this registry's store all the same: "
        "centra store adopt --incomplete"
    ),
    "store-moved": "set the store to {moved_to}",
    "store-of-another-registry": "set database and store to those of one registry",
}
"""What to do where the store is not the database's, by the code that says whose it is."""

HINTS |= {code: f"Nothing was done; {text}" for code, text in WRONG_STORE.items()}


def exit_code(error: CentraError) -> int:
    """The exit code of a command that ends in an error."""
    return next(EXIT_CODES[kind] for kind in type(error).__mro__ if kind in EXIT_CODES)


def message(error: CentraError) -> str:
    """An error's text, and on a line of its own what to do about it where that is known.

    An error that stands for another, its cause, has the other's hint where it has none itself.
    """
    cause: BaseException | None = error
    while isinstance(cause, CentraError):
        hint = HINTS.get(cause.code)
        if hint is not None:
            text = hint.format_map(cause.data) if isinstance(hint, str) else hint(cause.data)
            return f"{error}\n{text}" if text else str(error)
        cause = cause.__cause__
    return str(error)
