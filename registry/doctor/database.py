"""Looking at the database: whether it answers, its tables, its log, and the log's witnesses."""

from __future__ import annotations

from registry import audit
from registry.database.address import address_text
from registry.database.engine import translated
from registry.database.migrations import SCHEMA, current, differences
from registry.database.sqlite import check_exists
from registry.doctor.findings import NAMED, Finding, Setup, well
from registry.errors import DatabaseError
from registry.texts import first_lines

__all__ = [
    "check_audit_log",
    "check_database",
    "check_migration",
    "check_tables",
    "check_witnesses",
]


def check_database(setup: Setup) -> list[Finding]:
    """Whether the database is there and answers."""
    engine = setup.registry.engine
    try:
        check_exists(engine)
    except DatabaseError as error:
        text = f"there is no database {engine.url.database}"
        return [Finding(code=error.code, text=text, data=error.data)]
    with translated(engine), engine.connect() as connection:
        version = ".".join(map(str, connection.dialect.server_version_info or ()))
    return well(f"{address_text(engine.url)} ({engine.name} {version})")


def check_migration(setup: Setup) -> list[Finding]:
    """Whether the database has the tables of this code."""
    found = current(setup.registry.engine)
    if found == SCHEMA:
        return well(f"at {SCHEMA}")
    if found is None:
        return [Finding(code="database-empty", text="the database has no Centra tables yet")]
    data = {"found": found, "needed": SCHEMA}
    if found < SCHEMA:
        text = f"at {found}, this Centra needs {SCHEMA}"
        return [Finding(code="database-older", text=text, data=data)]
    text = f"at {found}, newer than this Centra's {SCHEMA}"
    return [Finding(code="database-newer", text=text, data=data)]


def check_tables(setup: Setup) -> list[Finding]:
    """Whether the tables are as the migrations made them."""
    lines = differences(setup.registry.engine)
    if lines:
        text = f"differ from this Centra's:\n{first_lines(lines, NAMED)}"
        return [Finding(code="tables-altered", text=text, data={"differences": lines})]
    return well("as this Centra has them")


def check_audit_log(setup: Setup) -> list[Finding]:
    """Whether the log is as it was written, and the tables are as it says."""
    verified = audit.verify(setup.registry, ask_store=False)
    return well(
        f"{verified.events} events, unbroken, and as the tables are; the last is sha256:"
        + verified.digest[:12]
    )


def check_witnesses(setup: Setup) -> list[Finding]:
    """Whether the log holds all that the store has seen of it."""
    count = audit.check_witnesses(setup.registry)
    return well(f"the log holds all that the store has seen of it; witnesses: {count}")
