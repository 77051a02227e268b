"""What stands around the code: one version everywhere, a citation, forms for issues."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import pytest
import yaml

from tests.support import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))


def test_one_version_stands_everywhere() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == PROJECT["version"]
    # Tags of images: centra:0.1.0, centra-registry:0.1.0, newTag: 0.1.0, appVersion: "0.1.0"
    tag = re.compile(r"(?:\bcentra(?:-\w+)?:|newTag: |appVersion: )\"?(\d+\.\d+\.\d+)")
    found = {
        (str(path.relative_to(ROOT)), version)
        for path in (ROOT / "examples").rglob("*")
        if path.is_file() and path.suffix not in (".jsonl", ".png", ".json")
        for version in tag.findall(path.read_text())
    }
    assert len({name for name, _ in found}) >= 6
    assert {name for name, version in found if version != PROJECT["version"]} == set()


def test_the_citation_is_of_the_software_and_of_the_paper() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert (citation["type"], citation["license"]) == ("software", PROJECT["license"])
    (paper,) = citation["references"]
    assert paper["url"] == PROJECT["urls"]["Paper"]
    assert [author["family-names"] for author in paper["authors"]] == ["Wei", "Qi", "He"]


def test_the_bill_of_materials_is_of_every_extra_that_users_install() -> None:
    """The demo's is weights alone."""
    makefile = (ROOT / "Makefile").read_text()
    (extras,) = re.findall(r"^sbom:.*?\"\.\[([a-z,]+)\]\"", makefile, re.MULTILINE | re.DOTALL)
    assert extras.split(",") == sorted(PROJECT["optional-dependencies"].keys() - {"demo"})


@pytest.mark.parametrize("form", [f for f in FORMS if f.stem != "config"], ids=lambda f: f.stem)
def test_forms_for_issues_are_what_a_forge_reads(form: Any) -> None:
    content = yaml.safe_load(form.read_text())
    assert content.keys() == {"name", "description", "labels", "body"}
    fields = [field for field in content["body"] if field["type"] != "markdown"]
    assert {field["type"] for field in fields} <= {"textarea", "input"}
    assert all(field["attributes"]["label"] for field in fields)
    assert len({field["id"] for field in fields}) == len(fields) > 0


def test_pages_about_the_project_link_to_files_that_are_there() -> None:
    for page in ("CONTRIBUTING", "SECURITY", "CODE_OF_CONDUCT", "RELEASING"):
        for target in re.findall(r"\]\(([^)#:]+)\)", (ROOT / f"{page}.md").read_text()):
            assert (ROOT / target).exists(), (page, target)
