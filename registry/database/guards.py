"""What keeps the database itself from changing the log: its triggers, and whether they still stand.

The newest migration leaves these very definitions behind; a test holds one against the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection

__all__ = ["WrongTrigger", "restore", "wrong_triggers"]

_REFUSAL = "the audit log is append-only"
_WHEN = {
    "update": "BEFORE UPDATE ON audit_events",
    "delete": "BEFORE DELETE ON audit_events",
    # REPLACE deletes without asking the trigger above.
    "replace": (
        "BEFORE INSERT ON audit_events "
        "WHEN EXISTS (SELECT 1 FROM audit_events WHERE id = NEW.id OR digest = NEW.digest)"
    ),
}
_SQLITE = {
    f"audit_events_no_{change}": (
        f"CREATE TRIGGER audit_events_no_{change} {when} "
        f"BEGIN SELECT RAISE(ABORT, '{_REFUSAL}'); END"
    )
    for change, when in _WHEN.items()
}

_TRIGGER = "audit_events_append_only"
_BODY = f"BEGIN RAISE EXCEPTION '{_REFUSAL}'; END"
_POSTGRESQL = f"""
CREATE OR REPLACE FUNCTION centra_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $${_BODY}$$;
DROP TRIGGER IF EXISTS {_TRIGGER} ON audit_events;
CREATE TRIGGER {_TRIGGER} BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_events
FOR EACH STATEMENT EXECUTE FUNCTION centra_refuse_change()
"""
_QUERY = """
SELECT t.tgname AS name, t.tgrelid = 'audit_events'::regclass AS on_events, t.tgtype AS type,
       t.tgenabled AS enabled, t.tgqual IS NULL AND t.tgattr = '' AND t.tgnargs = 0 AS always,
       p.prosrc AS body, l.lanname AS language
FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid JOIN pg_language l ON l.oid = p.prolang
WHERE t.tgrelid IN ('audit_events'::regclass, 'audit_head'::regclass) AND NOT t.tgisinternal
"""
_RULES = """
SELECT rulename FROM pg_rewrite
WHERE ev_class IN ('audit_events'::regclass, 'audit_head'::regclass)
"""
# PostgreSQL's bits for a statement's trigger that runs before delete, update and truncate.
_TYPE = 2 | 8 | 16 | 32


@dataclass(frozen=True, kw_only=True)
class WrongTrigger:
    """A trigger on the log's tables that is not as it should be."""

    name: str
    problem: Literal["missing", "altered", "foreign"]
    """A foreign one is not Centra's."""


def wrong_triggers(connection: Connection) -> list[WrongTrigger]:
    """The triggers that are missing or altered, and those on the log's tables that are not ours."""
    if connection.dialect.name == "sqlite":
        return _compare(_SQLITE, _sqlite(connection))
    return _compare({_TRIGGER: None}, _postgresql(connection))


def restore(connection: Connection) -> list[str]:
    """Put back the triggers that are missing or altered; their names."""
    wrong = [trigger.name for trigger in wrong_triggers(connection) if trigger.problem != "foreign"]
    if not wrong:
        return []
    if connection.dialect.name == "sqlite":
        for name in wrong:
            connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS {name}")
            connection.exec_driver_sql(_SQLITE[name])
    else:
        connection.exec_driver_sql(_POSTGRESQL)
    return wrong


def _compare(ours: Mapping[str, str | None], found: Mapping[str, str | None]) -> list[WrongTrigger]:
    wrong = []
    for name in sorted(ours.keys() | found.keys()):
        if name not in found:
            wrong.append(WrongTrigger(name=name, problem="missing"))
        elif name not in ours:
            wrong.append(WrongTrigger(name=name, problem="foreign"))
        elif found[name] != ours[name]:
            wrong.append(WrongTrigger(name=name, problem="altered"))
    return wrong


def _sqlite(connection: Connection) -> dict[str, str | None]:
    """The definition of each trigger on the log's tables."""
    query = text(
        "SELECT name, sql FROM sqlite_master "
        "WHERE type = 'trigger' AND lower(tbl_name) IN ('audit_events', 'audit_head')"
    )
    return {row.name: row.sql for row in connection.execute(query)}


def _postgresql(connection: Connection) -> dict[str, str | None]:
    """None for each trigger that does what ours does, and else what it does; rules, too."""
    ours = (True, _TYPE, True, _BODY, "plpgsql")

    def definition(row: Any) -> str | None:
        given = (row.on_events, row.type, row.always, row.body, row.language)
        # Always, or but for the sessions that replay another server's changes.
        return None if given == ours and row.enabled in ("O", "A") else repr(tuple(row))

    found = {row.name: definition(row) for row in connection.execute(text(_QUERY))}
    return found | {row.rulename: "a rule" for row in connection.execute(text(_RULES))}
