"""The Dockerfiles and what they install; carried out in :mod:`tests.deploy.test_image`."""

from __future__ import annotations

import re
from importlib.metadata import distribution

import pytest
from packaging.utils import canonicalize_name

from tests.deploy.commands import serve_options
from tests.deploy.dockerfile import Stage, is_sent, read_stages
from tests.deploy.requirements import (
    CONSTRAINTS,
    EXTRAS,
    LEFT_OUT,
    closure,
    declared,
    installed,
    needed_by,
    pinned,
)
from tests.support import ROOT

DEPLOY = ROOT / "examples" / "deploy"
FILES = ("Dockerfile", "Dockerfile.gpu")


@pytest.fixture(
    params=[("Dockerfile", "serve"), ("Dockerfile", "registry"), ("Dockerfile.gpu", "serve")]
)
def final(request: pytest.FixtureRequest) -> Stage:
    """A stage that is run."""
    file, stage = request.param
    return read_stages(DEPLOY / file)[1][stage]


def test_an_image_runs_as_a_number_and_writes_to_its_volumes_alone(final: Stage) -> None:
    assert final.last("USER").text == "65532:65532"
    assert final.last("VOLUME").words == ["/cache", "/tmp"]
    (environment,) = final.all("ENV")
    assert environment.pairs["CENTRA_CACHE"] == "/cache"
    assert environment.pairs["HOME"] == "/tmp"


def test_no_shell_is_between_a_signal_and_centra(final: Stage) -> None:
    assert final.last("ENTRYPOINT").words == ["centra"]
    assert final.last("CMD").is_exec


@pytest.mark.parametrize("file", FILES)
def test_the_server_listens_on_the_ports_that_are_exposed_and_asked(file: str) -> None:
    stage = [*read_stages(DEPLOY / file)[1].values()][-1]
    command, *words = stage.last("CMD").words
    assert (stage.name, command) == ("serve", "serve")
    given = serve_options(words)
    assert given == {"host": "0.0.0.0", "port": "8080", "grpc_port": "8081"}
    assert stage.last("EXPOSE").words == [given["port"], given["grpc_port"]]
    health = stage.last("HEALTHCHECK").text
    assert "CMD [" in health
    assert "'127.0.0.1', 8080" in health
    assert "'/readyz'" in health


@pytest.mark.parametrize("file", FILES)
def test_bases_have_a_tag_and_what_is_copied_is_there_and_sent(file: str) -> None:
    arguments, stages = read_stages(DEPLOY / file)
    assert re.fullmatch(r"python:3\.\d+-slim-\w+", arguments["PYTHON"])
    ignore = DEPLOY / f"{file}.dockerignore"
    for stage in stages.values():
        assert stage.base == "${PYTHON}"
        for step in stage.all("COPY"):
            origin = step.flag("from")
            assert origin is None or origin in stages
            for source in [] if origin else step.words[:-1]:
                assert (ROOT / source).exists()
                assert is_sent(source, ignore)
    for name in (
        "shared/data",
        "tests/support.py",
        ".git/config",
        "examples/deploy/secrets/s3.ini",
    ):
        assert not is_sent(name, ignore)


def test_the_wheel_gets_all_that_it_is_made_of() -> None:
    copied = {
        file: [step.words[:-1] for step in read_stages(DEPLOY / file)[1]["wheel"].all("COPY")]
        for file in FILES
    }
    assert copied["Dockerfile"] == copied["Dockerfile.gpu"]
    names = {name for words in copied["Dockerfile"] for name in words}
    pyproject = (ROOT / "pyproject.toml").read_text()
    (only,) = re.findall(r"^only-include = \[(.*)\]", pyproject, re.MULTILINE)
    assert names == {
        *re.findall(r'"([^"]+)"', only),
        *("pyproject.toml", "README.md", "LICENSE", "hatch_build.py", "examples/assistant"),
    }


def test_what_a_server_needs_is_pinned_and_nothing_that_it_does_not() -> None:
    pins = pinned()
    assert not pins.keys() & LEFT_OUT.keys()
    assert {name: CONSTRAINTS[name] for name in pins if name in CONSTRAINTS} == {
        name: version for name, version in pins.items() if name in CONSTRAINTS
    }
    asked, here = [*declared()], installed()
    for name, version in pins.items():
        # Where another version is installed here, it may ask for other packages.
        if here.get(name) == version:
            extras = {extra for one in declared() if one.name == name for extra in one.extras}
            asked += needed_by(name, extras)
    assert not [
        str(one) for one in asked if not one.specifier.contains(pins[canonicalize_name(one.name)])
    ]
    if here == pins:
        assert closure() == pins


def test_the_extras_of_the_image_are_centras_own() -> None:
    assert {*EXTRAS} <= {*distribution("centra").metadata.get_all("Provides-Extra", [])}
