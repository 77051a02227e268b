"""What is wrong with a setup: each part is looked at by itself, and each finding says what it is.

A check that fails stops none but those that need what it looked at. Nothing is changed: the probe
that shows whether the store can be written is removed again. A finding has a code and data; who shows
it to people adds what they can do about it there.
"""

from registry.doctor.examination import examine
from registry.doctor.findings import Check, Finding

__all__ = ["Check", "Finding", "examine"]
