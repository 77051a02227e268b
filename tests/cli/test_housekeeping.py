from __future__ import annotations

import json
import os
import sqlite3
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import pytest

from centra.store import LocalStore
from cli.options import DURATION, TIME, duration_text
from tests.cli.helpers import centra, read, read_repeated, refused, state
from tests.cli.test_laziness import imported_by_commands

DAY = timedelta(days=1)


def store() -> LocalStore:
    return LocalStore(Path(".centra/store"))


def litter(data: bytes, age: timedelta = timedelta()) -> str:
    """Put a blob that nothing reaches, a little older than this."""
    digest = store().put(data)
    then = time.time() - age.total_seconds() - 60
    os.utime(store().path(digest), (then, then))
    return digest


def tamper(statement: str) -> None:
    """Change the log in spite of the database's own guard."""
    with closing(sqlite3.connect(".centra/registry.db")) as connection, connection:
        connection.execute("DROP TRIGGER IF EXISTS audit_events_no_update")
        connection.execute("DROP TRIGGER IF EXISTS audit_events_no_delete")
        connection.execute(statement)


# Garbage.


def test_gc_names_what_it_would_remove_and_removes_exactly_that(home: Path) -> None:
    clean = state(home)
    old, young = litter(b"old litter", 9 * DAY), litter(b"young")
    before = state(home)

    dry = centra("gc")
    assert "nothing was removed" in dry.stderr
    assert dry.stdout.splitlines()[1].split() == [old, "10", "9", "days"]
    assert dry.stdout.splitlines()[-1] == (
        "garbage: 1 file, 10 bytes; and 1 file, 5 bytes younger than 7 days"
    )
    assert state(home) == before

    done = centra("gc", "--delete")
    assert done.stdout.splitlines()[:-1] == dry.stdout.splitlines()[:-1]
    assert done.stdout.splitlines()[-1].startswith("removed: 1 file, 10 bytes;")
    assert not store().has(old)
    assert store().has(young)

    centra("gc", "--delete", "--grace", "0s")
    assert {key: value for key, value in state(home).items() if key != "rows"} == {
        key: value for key, value in clean.items() if key != "rows"
    }
    centra("release", "verify", "latest")
    events = [event for event in read("audit") if event["action"] == "store:gc"]
    assert [event["details"] for event in events] == [
        {"count": 1, "bytes": 10},
        {"count": 1, "bytes": 5},
    ]


def test_gc_prints_json(home: Path) -> None:
    old = litter(b"old litter", 9 * DAY)
    found = read("gc", "--grace", "12h")
    (garbage,) = found.pop("garbage")
    assert found == {
        "deleted": False,
        "grace": 12 * 3600,
        "count": 1,
        "size": 10,
        "young_count": 0,
        "young_size": 0,
    }
    assert (garbage["kind"], garbage["name"], garbage["size"]) == ("blob", old, 10)
    assert garbage["age"] >= 9 * 86400
    assert datetime.fromisoformat(garbage["updated_at"]).tzinfo is not None
    first, again = read_repeated("gc", "--delete")
    assert (first["deleted"], first["count"]) == (True, 1)
    assert [one["name"] for one in first["garbage"]] == [old]
    assert (again["deleted"], again["count"], again["garbage"]) == (True, 0, [])


def test_gc_of_a_clean_store_prints_its_total_alone(home: Path) -> None:
    assert centra("gc").stdout == "garbage: 0 files, 0 bytes\n"
    assert centra("gc").stderr == ""
    assert centra("gc", "--delete").stdout == "removed: 0 files, 0 bytes\n"


@pytest.mark.parametrize("grace", ["7", "x", "-1d", "1.5h", "1d12h", "", "1y", "٣d"])
def test_gc_refuses_a_grace_period_that_is_none(home: Path, grace: str) -> None:
    refused("gc", f"--grace={grace}", code=2, says="expected for example 0s, 30m, 12h, 7d")


def test_gc_refuses_where_it_cannot_know_what_is_needed(home: Path) -> None:
    litter(b"litter", 9 * DAY)
    Path(".centra/store/channels/production.json").write_bytes(b"half of {")
    before = state(home)
    refused("gc", code=6, says=("production.json", "nothing may be removed", "channel sync"))
    refused("gc", "--delete", code=6, says="production.json")
    assert state(home) == before


def test_gc_without_a_registry_says_how_to_make_one() -> None:
    refused("gc", code=3, says="centra init")


# The pointers.


def test_channel_sync_mends_pointers_and_says_which_were_stale(home: Path) -> None:
    centra("channel", "move", "production", "1")
    right = {name: store().read_pointer(name) for name in ("latest", "production")}
    store().write_pointer("latest", b"{}")
    Path(".centra/store/channels/production.json").unlink()

    one = centra("channel", "sync", "production")
    assert "was stale: production" in one.stderr
    assert one.stdout.split()[-5:] == ["production", "1", "1", "was", "stale"]
    assert store().read_pointer("latest") == b"{}"

    first, again = read_repeated("channel", "sync")
    said = "is not as the database has it: it cannot be read"
    assert first == [
        {"channel": "latest", "release": 1, "revision": 1, "changed": True, "found": said},
        {"channel": "production", "release": 1, "revision": 1, "changed": False, "found": None},
    ]
    assert [row["changed"] for row in again] == [False, False]
    assert {name: store().read_pointer(name) for name in right} == right
    assert "nothing to do" in centra("channel", "sync").stderr


def test_channel_sync_of_no_channel_is_refused(home: Path) -> None:
    refused("channel", "sync", "nowhere", code=3, says="no channel 'nowhere'")


def test_channel_sync_of_a_registry_without_channels_does_nothing() -> None:
    centra("init")
    assert read("channel", "sync") == []
    assert not Path(".centra/store").exists()


# The log.


def test_the_log_can_be_narrowed_to_what_happened_since(home: Path) -> None:
    events = read("audit")
    assert len(events) == 6
    assert read("audit", "--since", "1h") == events
    assert read("audit", "--since", "2020-01-01") == events
    assert read("audit", "--since", "0s") == []
    assert read("audit", "--since", f"{datetime.now(UTC) + DAY:%Y-%m-%d}") == []
    last = events[-1]["created_at"]
    assert read("audit", "--since", last)[-1] == events[-1]
    assert len(read("audit", "--since", last, "--task", "intent")) == 0
    lines = centra("audit", "--since", "1h", "--actor", "dialog").stdout.splitlines()
    assert len(lines) == 2
    assert "task:register" in lines[1]


@pytest.mark.parametrize("since", ["yesterday", "2026-13-01", "12:00", "7", "", "9999999999d"])
def test_a_time_that_is_none_is_refused(home: Path, since: str) -> None:
    refused("audit", f"--since={since}", code=2, says=("2026-11-01", "7d"))


def test_audit_verify_counts_the_events_and_gives_the_last_digest(home: Path) -> None:
    events = read("audit")
    digest = events[-1]["digest"]
    found = read("audit", "verify")
    assert found == {
        "events": 6,
        "digest": digest,
        "witness": f"6:{digest}",
        "witnesses": 1,
        "void": {},
        "rows": found["rows"],
        "partly": 0,
    }
    text = centra("audit", "verify", "--expect", f"6:{digest}", "--expect", f"6:{digest}").stdout
    assert text.startswith("6 events, each linked to the one before; witnesses that agree: 3;")
    assert text.splitlines()[-1] == f"6:{digest}"


def test_audit_verify_demands_what_was_printed_once(home: Path) -> None:
    says = ("is not the one of which", "backup")
    refused("audit", "verify", "--expect", f"6:{'a' * 64}", code=6, says=says)
    refused("audit", "verify", "--expect", "6", code=2, says="COUNT:DIGEST")


def test_a_cut_log_is_accepted_after_a_restore_alone_and_triggers_come_back(home: Path) -> None:
    def cut() -> None:
        kept = read("audit")[3]
        tamper("DELETE FROM audit_events WHERE id > 4")
        tamper(f"UPDATE audit_head SET count = 4, digest = '{kept['digest']}'")

    centra("audit", "verify")
    assert read("audit", "accept") == {"changed": False, "void": []}
    assert centra("audit", "guard").stdout == "all stand\n"
    cut()
    says = ("the store has seen", "the log ends at event 4", "centra audit accept")
    refused("audit", "verify", code=6, says=(*says, "centra audit guard"))
    refused("audit", "verify", "--no-store", code=6, says="audit_events_no_update is missing")
    assert len(read("audit", "guard")["restored"]) == 2
    (void,) = read("audit", "accept")["void"]
    assert centra("audit", "accept").stdout.startswith("nothing to accept")
    assert [event["action"] for event in read("audit")[4:]] == ["audit:guard", "audit:accept"]
    result = centra("audit", "verify", code=6)  # The tables have not been restored.
    assert void not in result.stderr
    assert "no event made this row" in result.stderr


@pytest.mark.parametrize(
    ("statement", "event"),
    [
        ("UPDATE audit_events SET actor = 'nlu/eve' WHERE id = 2", 2),
        ("UPDATE audit_events SET details = 'nonsense' WHERE id = 4", 4),
        ("DELETE FROM audit_events WHERE id = 1", 1),
        ("DELETE FROM audit_events WHERE id = 6", 6),
        ("UPDATE audit_head SET count = 3", 4),
    ],
)
def test_audit_verify_names_the_event_that_was_tampered_with(
    home: Path, statement: str, event: int
) -> None:
    tamper(statement)
    for options in ((), ("--json",)):
        refused("audit", "verify", *options, code=6, says=(f"audit event {event}:", "backup"))


def test_options_of_the_list_are_no_options_of_verify(home: Path) -> None:
    for options in (("--task", "intent"), ("--since", "1h"), ("--actor", "nlu"), ("--json",)):
        refused("audit", *options, "verify", code=2, says="for the list")


# The doctor.


def test_the_doctor_finds_nothing_wrong_with_a_healthy_registry(home: Path) -> None:
    before = state(home)
    result = centra("doctor")
    lines = result.stdout.splitlines()
    assert lines[-1] == "problems: 0, warnings: 0, skipped: 0"
    assert [line.split()[0] for line in lines[:-1]] == ["ok"] * 17
    assert result.stderr == ""
    assert state(home) == before


def test_the_doctor_names_each_problem_with_its_mend_and_fails(home: Path) -> None:
    Path(".centra/store/channels/latest.json").unlink()
    result = centra("doctor", code=1)
    assert "problem  pointers        the pointer of latest is missing\n" in result.stdout
    assert "→ centra channel sync latest\n" in result.stdout
    assert "Error" not in result.stderr
    centra("channel", "sync", "latest")
    assert centra("doctor").stdout.endswith("problems: 0, warnings: 0, skipped: 0\n")


def test_the_doctor_prints_json(home: Path) -> None:
    litter(b"litter", 9 * DAY)
    found = read("doctor")
    assert all(list(check) == ["check", "state", "found", "mend", "damaged"] for check in found)
    assert [check for check in found if check["state"] != "ok"] == [
        {
            "check": "garbage",
            "state": "warning",
            "found": "nothing reaches 1 file, 6 bytes",
            "mend": "centra gc, then centra gc --delete",
            "damaged": [],
        }
    ]
    tamper("DELETE FROM audit_events WHERE id = 1")
    found = json.loads(centra("doctor", "--json", code=1).stdout)
    wrong = [check for check in found if check["state"] == "problem"]
    assert [check["check"] for check in wrong] == ["audit log", "witnesses"]
    assert all(check["mend"] for check in wrong)


def test_the_doctor_works_where_there_is_nothing() -> None:
    result = centra("doctor", code=1)
    first, mend, *rest, total = result.stdout.splitlines()
    assert first.startswith("problem  settings")
    assert "centra init" in mend
    assert {line.split()[0] for line in rest} == {"skipped"}
    assert total == "problems: 1, warnings: 0, skipped: 16"
    assert list(Path().iterdir()) == []


def test_the_doctor_takes_the_global_options(home: Path) -> None:
    result = centra("--database", "none.db", "--actor", "ops/cy", "doctor", code=1)
    assert "database from --database" in result.stdout
    assert "acts as ops/cy" in result.stdout
    assert "centra db upgrade" in result.stdout
    assert not Path("none.db").exists()


# All of them.


def test_housekeeping_waits_for_no_library_that_it_has_no_use_for(home: Path) -> None:
    found = imported_by_commands(
        ("audit", "--since", "1h"),
        ("audit", "verify"),
        ("channel", "sync"),
        ("gc",),
        ("gc", "--delete", "--grace", "0s"),
        ("doctor",),
    )
    heavy = {"torch", "transformers", "boto3"}
    assert [(command, code, imported & heavy) for command, code, imported in found] == [
        (command, 0, set()) for command, _, _ in found
    ]
    assert all("alembic" not in imported for command, _, imported in found if command != "doctor")


# Times and lengths of time.


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("0s", timedelta()),
        ("45s", timedelta(seconds=45)),
        ("30m", timedelta(minutes=30)),
        ("12h", timedelta(hours=12)),
        ("7d", timedelta(days=7)),
        ("2w", timedelta(weeks=2)),
        ("007d", timedelta(days=7)),
    ],
)
def test_a_duration_is_read(text: str, length: timedelta) -> None:
    assert DURATION(text) == length
    assert TIME(text) == length  # Back from when, the database says.


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-01", datetime(2026, 11, 1, tzinfo=UTC)),
        ("2026-11-01T12:00", datetime(2026, 11, 1, 12, tzinfo=UTC)),
        ("2026-11-01 12:00:30", datetime(2026, 11, 1, 12, 0, 30, tzinfo=UTC)),
        ("2026-11-01T12:00Z", datetime(2026, 11, 1, 12, tzinfo=UTC)),
        ("2026-11-01T12:00+02:00", datetime(2026, 11, 1, 10, tzinfo=UTC)),
        ("2026-11-01T12:00:00.5-01:00", datetime(2026, 11, 1, 13, 0, 0, 500000, tzinfo=UTC)),
    ],
)
def test_a_time_is_read_and_is_in_utc(text: str, moment: datetime) -> None:
    found = TIME(text)
    assert found == moment
    assert found.tzinfo is UTC


@pytest.mark.parametrize("text", ["999999999w", "0001-01-01T00:00+14:00", "9999-12-31T23:59-14:00"])
def test_a_time_that_no_calendar_has_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is no time"):
        TIME(text)


@pytest.mark.parametrize(
    ("length", "text"),
    [
        (timedelta(), "0 seconds"),
        (timedelta(seconds=1), "1 second"),
        (timedelta(seconds=119), "1 minute"),
        (timedelta(hours=47), "1 day"),
        (timedelta(days=400), "400 days"),
        (timedelta(seconds=-5), "0 seconds"),
    ],
)
def test_a_length_of_time_is_shown_in_its_largest_unit(length: timedelta, text: str) -> None:
    assert duration_text(length) == text
