"""The documentation as a site: links that lead somewhere, references that leave nothing out.

The generator itself is run by ``make docs``; the tutorial and the notebook have tests of their own.
"""

from __future__ import annotations

import re
import shlex
import tomllib
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import click
import pytest

import cli
from docs_site.assemble import assemble, linked, written
from tests.support import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PAGES = written(ROOT)
SHELL = {"|", "||", "&&", "&", ";", ">", ">>"}
"""What ends a command."""


def headings(page: Path) -> set[str]:
    """What a link into a page may name, as the generator and the forges have it."""
    text = re.sub(r"^ *```.*?^ *```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ +(.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_link_is_dead(page: Path) -> None:
    dead = []
    for link in linked(page.read_text(encoding="utf-8")):
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        # A folder has no page; a site's links name its README.
        if not target.is_file() or (anchor and anchor not in headings(target)):
            dead.append(link)
    assert dead == []


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the generator is given."""
    folder = tmp_path_factory.mktemp("site") / "pages"
    assemble(ROOT, folder)
    return folder


def commands(command: click.Command, *path: str) -> Iterator[tuple[str, ...]]:
    yield path
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from commands(found, *path, name)


def test_the_reference_has_every_command_with_its_options(site: Path) -> None:
    folder = site / "docs" / "reference" / "commands"
    for path in list(commands(cli.main))[1:]:
        assert re.search(
            rf"^#+ centra {' '.join(path)}$", (folder / f"{path[0]}.md").read_text(), re.MULTILINE
        )
    assert "`--expect-revision N`" in (folder / "promote.md").read_text()


def commands_shown(text: str) -> Iterator[list[str]]:
    """The words of each command of ours that a page's blocks have, without what the shell reads."""
    for block in re.findall(r"^ *```(?:sh|bash)\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            if "centra " in line and "<<" not in line:
                words = [
                    *takewhile(lambda word: word not in SHELL, shlex.split(line, comments=True))
                ]
                if "centra" in words[:2]:
                    yield words[words.index("centra") + 1 :]


def understand(command: click.Command, words: list[str]) -> None:
    """Read a command line as click does, but for what the values mean."""
    context = click.Context(command)
    _, rest, _ = command.make_parser(context).parse_args(words)
    if isinstance(command, click.Group) and rest:
        found = command.get_command(context, rest[0])
        assert found is not None, f"no command {rest[0]}"
        understand(found, rest[1:])


def test_every_command_that_a_page_shows_is_one() -> None:
    for page in PAGES:
        for words in commands_shown(page.read_text(encoding="utf-8")):
            try:
                understand(cli.main, words)
            except click.UsageError as error:
                pytest.fail(f"{page.name}: centra {shlex.join(words)}: {error.format_message()}")


def test_the_reference_has_every_public_name(site: Path) -> None:
    import centra
    import registry.tasks

    folder = site / "docs" / "reference" / "python"
    for module in (centra, registry.tasks):
        text = (folder / f"{module.__name__}.md").read_text()
        names = {name for name in module.__all__ if not name.startswith("__")}
        assert set(re.findall(rf"^::: {module.__name__}\.(\w+)$", text, re.MULTILINE)) == names


def places(nav: Any) -> Iterator[str]:
    """The pages that a site's navigation names."""
    match nav:
        case str():
            yield nav
        case dict():
            for value in nav.values():
                yield from places(value)
        case list():
            for value in nav:
                yield from places(value)


def test_the_navigation_has_every_page_of_the_documentation(site: Path) -> None:
    nav = set(places(tomllib.loads((ROOT / "zensical.toml").read_text())["project"]["nav"]))
    assert [name for name in nav if not (site / name).is_file()] == []
    docs = {str(page.relative_to(ROOT)) for page in PAGES if page.is_relative_to(ROOT / "docs")}
    assert {name for name in docs if "/adr/0" not in name} <= nav


def test_a_link_to_what_is_no_page_brings_the_file_along(site: Path) -> None:
    assert (site / "docs" / "pictures" / "release.svg").is_file()
    assert (site / "examples" / "grafana" / "centra.json").is_file()
