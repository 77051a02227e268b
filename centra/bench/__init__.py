"""How fast a release answers on this machine, and how near that is to what the machine can do."""

from __future__ import annotations

from centra.bench.floor import Floor, measure_floor
from centra.bench.report import Report, SizeReport, bench
from centra.bench.work import Work, release_work

__all__ = ["Floor", "Report", "SizeReport", "Work", "bench", "measure_floor", "release_work"]
