"""The log of changes: each event is chained to the one before it, and none is ever changed.

Writing is :meth:`registry.database.unit_of_work.UnitOfWork.record`, in the change's own transaction. The
database itself refuses to update or delete an event. An event's digest covers its content and the
digest before it, and the log's head holds the last one, so that a row which somebody changed, took
out or put in behind the database's back shows.

Whoever can write the database can also write the whole chain anew. That shows by a *witness*: how
many events there were, and the digest of the last, kept where the database's owner has no say. The
store keeps one of each release; others are printed, and can be asked for again.
"""

from registry.audit.log import Event, events
from registry.audit.verification import Verified, restore_guards, verify
from registry.audit.witnesses import accept, check_witnesses, write_witness

__all__ = [
    "Event",
    "Verified",
    "accept",
    "check_witnesses",
    "events",
    "restore_guards",
    "verify",
    "write_witness",
]
