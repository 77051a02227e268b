"""The gates of a promotion, for a terminal, for a CI summary, and for a CI's test report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cli.errors import gate_hint
from cli.output import print_table

if TYPE_CHECKING:
    from pathlib import Path

    from registry.promotion import Promotion
    from registry.rules.gates import Gate

__all__ = ["markdown", "print_gates", "write_junit"]

_UNASKED = "It is what the channel serves already, so no gate was asked."
_COLUMNS = ("gate", "task", "wanted", "found", "result")


def print_gates(promotion: Promotion) -> None:
    """One row a gate on standard output."""
    if promotion.gates:
        print_table(_COLUMNS, _rows(promotion))


def markdown(promotion: Promotion) -> str:
    """The same as a Markdown section."""
    what = promotion.what.rstrip(",")
    before = f"release {promotion.before}" if promotion.before else "nothing"
    lines = [
        f"### {what[0].upper()}{what[1:]} → {promotion.channel}: {_outcome(promotion)}",
        "",
        f"{promotion.channel} "
        + (f"served {before} before." if promotion.promoted else f"serves {before}."),
        "",
    ]
    if promotion.unchanged:
        lines.append(_UNASKED)
    elif promotion.gates:
        rows = [_COLUMNS, ("---",) * len(_COLUMNS), *_rows(promotion)]
        lines += [
            "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows
        ]
    else:
        lines.append("No gate of the channel applies.")
    return "\n".join(lines)


def write_junit(promotion: Promotion, path: Path) -> None:
    """Write the gates as JUnit XML, a test case each; a skipped one where none was asked.

    Raises:
        StoreNotWritableError: the file cannot be written.
    """
    from xml.etree import ElementTree as ET

    from centra.errors import StoreNotWritableError
    from centra.system.files import replacing

    failures = sum(not gate.passed for gate in promotion.gates)
    suite = ET.Element(
        "testsuite",
        name=f"centra promote {promotion.rebased_from or promotion.release} "
        f"--to {promotion.channel}",
        tests=str(len(promotion.gates) + promotion.unchanged),
        failures=str(failures),
        skipped=str(int(promotion.unchanged)),
    )
    if promotion.unchanged:
        classname = f"gates.{promotion.channel}"
        case = ET.SubElement(suite, "testcase", classname=classname, name="all gates")
        ET.SubElement(case, "skipped", message=_UNASKED)
    for gate in promotion.gates:
        name = f"{gate.gate} {gate.task}" if gate.task else gate.gate
        case = ET.SubElement(suite, "testcase", classname=f"gates.{promotion.channel}", name=name)
        if not gate.passed:
            message = f"wanted {_wanted(gate)}, found {_found(gate)}"
            ET.SubElement(case, "failure", message=message)
    try:
        with replacing(path) as temporary:
            ET.ElementTree(suite).write(temporary, encoding="utf-8", xml_declaration=True)
    except OSError as error:
        raise StoreNotWritableError(f"cannot write {path}: {error.strerror}") from error


def _outcome(promotion: Promotion) -> str:
    if promotion.unchanged:
        return "nothing changes"
    if not all(gate.passed for gate in promotion.gates):
        return "refused"
    return "all gates pass" if promotion.gates else "no gate applies"


def _rows(promotion: Promotion) -> list[tuple[str, ...]]:
    return [
        (
            gate.gate,
            gate.task or "-",
            _wanted(gate),
            _found(gate),
            "pass" if gate.passed else "FAIL",
        )
        for gate in promotion.gates
    ]


def _wanted(gate: Gate) -> str:
    """What is wanted; of what an option gives, the option."""
    accepts = any(remedy.code == "accept-redefined" for remedy in gate.remedies)
    return "--accept-redefined" if accepts else gate.wanted


def _found(gate: Gate) -> str:
    """What was found, and how to come by what is lacking."""
    lacking = [remedy for remedy in gate.remedies if remedy.code != "accept-redefined"]
    hints = dict.fromkeys(gate_hint(remedy.code, remedy.data) for remedy in lacking)
    return "; ".join([gate.found, *hints])
