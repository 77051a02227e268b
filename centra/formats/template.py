"""What a task puts around a text before it is tokenised: ``query: {text}``.

``{text}`` stands once, where the caller's text goes. All else is taken as it stands, other braces too.
"""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["PLAIN", "Template", "parse_templates"]

PLAIN = "{text}"
"""Where the text goes; as a whole template, the text alone."""


class Template(NamedTuple):
    """What stands before a text and behind it."""

    before: str = ""
    after: str = ""

    @classmethod
    def parse(cls, written: str) -> Template:
        """Read a template.

        Raises:
            ValueError: the place of the text is missing or stands twice, or it is no valid Unicode.
        """
        count = written.count(PLAIN)
        if not count:
            mended = re.sub(r"\{[^{}]*\}", PLAIN, written, count=1)
            mended = mended if PLAIN in mended else written + PLAIN
            raise ValueError(
                f"{written!r:.200} does not say where the text goes; write {PLAIN} there, as in "
                f"{mended!r:.200}"
            )
        if count > 1:
            raise ValueError(f"{written!r:.200} has {PLAIN} {count} times; expected it once")
        try:
            written.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"{written!a:.200} is not valid Unicode text") from error
        before, _, after = written.partition(PLAIN)
        return cls(before, after)

    def around(self, text: str) -> str:
        """A text with it."""
        return f"{self.before}{text}{self.after}"


def parse_templates(written: str | tuple[str, str]) -> tuple[Template, Template]:
    """The templates of the first and the second text of an input, of one for both or of one each.

    Raises:
        ValueError: see :meth:`Template.parse`.
    """
    first, second = (written, written) if isinstance(written, str) else written
    return Template.parse(first), Template.parse(second)
