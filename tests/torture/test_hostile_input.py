"""Bytes from outside, made to harm: each is refused in words, and costs no more than its size."""

from __future__ import annotations

import json
import random
import resource
import subprocess
import sys
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from centra.errors import CentraError
from centra.formats.documents import canonical_json
from tests import support
from tests.torture import fuzz

if TYPE_CHECKING:
    from pathlib import Path

COST = 30
"""Bytes of memory for each byte of an input: Python's smallest containers, which JSON makes of three."""
FLOOR = 16 << 20
"""What a parser may take for an input of no size."""
INPUTS = 120


@pytest.fixture(scope="module")
def seeds() -> dict[str, list[bytes]]:
    return fuzz.seeds()


@pytest.mark.parametrize("name", fuzz.PARSERS)
def test_honest_bytes_are_not_refused(
    name: str, seeds: dict[str, list[bytes]], tmp_path: Path
) -> None:
    for number, data in enumerate(seeds[name]):
        folder = tmp_path / str(number)
        folder.mkdir()
        # A key is read for what it is to verify, which nobody has signed.
        unsigned = pytest.raises(CentraError, match="is not signed")
        with unsigned if name == "key" else nullcontext():
            fuzz.PARSERS[name].parse(data, folder)


@pytest.mark.parametrize("name", fuzz.PARSERS)
def test_mutations_of_honest_bytes_are_refused_or_taken_in_words(name: str) -> None:
    parser, campaign = fuzz.PARSERS[name], fuzz.campaigns()[name]
    inputs = max(2, int(INPUTS * parser.share))

    fuzz.attack(name, campaign, random.Random(0), inputs)

    assert campaign.faults == {}
    assert campaign.counts["inputs"] == inputs


@pytest.mark.parametrize(
    "name", [name for name, p in fuzz.PARSERS.items() if p.kind == "json" and p.share == 1]
)
@settings(max_examples=25)
@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_any_json_is_refused_or_taken_in_words(
    name: str, value: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with suppress(CentraError):
        fuzz.PARSERS[name].parse(json.dumps(value).encode(), tmp_path_factory.mktemp("any"))


# What a bomb may cost


def bombs() -> dict[str, tuple[str, bytes]]:
    """Small inputs that would have large consequences, and large ones, by what they are."""
    manifest = json.loads(fuzz.seeds()["manifest"][0])
    module = fuzz.seeds()["module"][0]
    found: dict[str, tuple[str, bytes]] = {}

    def with_spec(**fields: Any) -> bytes:
        header, rest = fuzz._header_of(module)
        spec = json.loads(header.pop("__metadata__")["centra"])["spec"] | fields
        tensors = {
            name: fuzz.RawTensor(
                dtype=t["dtype"], shape=tuple(t["shape"]), data=rest[slice(*t["data_offsets"])]
            )
            for name, t in header.items()
        }
        return fuzz._sealed(spec, tensors)

    def with_task(**fields: Any) -> bytes:
        tasks = {**manifest["tasks"], "intent": manifest["tasks"]["intent"] | fields}
        return canonical_json({**manifest, "tasks": tasks})

    for depth in (10_000, 10**9, 2**53):
        found[f"depth {depth}"] = ("module", with_spec(depth=depth))
        found[f"depth {depth} of a header"] = ("module header", with_spec(depth=depth))
        found[f"depth {depth} of a release"] = ("manifest", with_task(depth=depth))
        found[f"tap {depth} of a release"] = ("manifest", with_task(tap_layer=depth))
    entry = b'"t%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    many = b",".join(entry % i for i in range(50_000))
    size = 4 << 20
    first = b'{"a":{"dtype":"F32","shape":[%d],"data_offsets":[0,%d]},' % (size // 4, size)
    found["header of many tensors"] = ("tensors", fuzz._framed(first + many + b"}", bytes(size)))
    found["header without tensors"] = ("tensors", fuzz._framed(b"{" + many + b"}", b""))
    found["header of lists"] = ("tensors", fuzz._framed(b"[" + b"[],[]," * 700_000 + b"[]]", b""))
    found["header as long as can be"] = ("tensors", fuzz._framed(b"[" + b"[]," * (1 << 25), b""))
    found["manifest of lists"] = ("manifest", b"[" + b"[]," * (1 << 18) + b"[]]")
    found["manifest of dicts"] = ("manifest", b"[" + b'{"a":{}},' * (1 << 17) + b"{}]")
    found["manifest too long"] = ("manifest", b"[" + b"[]," * (1 << 24) + b"[]]")
    found["deep"] = ("manifest", b"[" * 10**6)
    found["deep objects"] = ("config", b'{"a":' * 10**6)
    found["digits without end"] = (
        "manifest",
        b'{"format":"centra/release","format_version":' + b"9" * 10**6,
    )
    version = canonical_json({**manifest, "format_version": "9" * 10**6 + ".0"})
    found["version without end"] = ("manifest", version)
    found["deep TOML"] = ("settings", b"a=" + b"[" * 10**5)
    found["dotted TOML"] = ("settings", b"a." * 10**5 + b"a=1")
    found["dotted table"] = ("recipe", b"[" + b"a." * 10**5 + b"a]")
    found["long TOML"] = ("settings", b"#" * (1 << 24))
    layers = b'task="a"\nbackbone="b"\ndata="d"\n[search]\nlayers=[1, 9007199254740992]'
    found["layers of a recipe"] = ("recipe", layers)
    found["labels"] = ("labels", b"[" + b"[]," * (1 << 18) + b"[]]")
    found["examples in one line"] = ("examples", b"[" + b"[]," * (1 << 18) + b"[]]")
    found["keys that differ"] = (
        "examples",
        b"{" + b",".join(b'"%d":0' % i for i in range(10**5)) + b"}",
    )
    found["twice the key"] = ("examples", b"{" + b",".join([b'"a":0'] * 10**6) + b"}")
    found["sums"] = ("sums", b"\n" * (1 << 20))
    return found


_CHILD = """
import sys, tempfile
from pathlib import Path
from centra.errors import CentraError
from tests.torture import fuzz
from tests.torture.test_hostile_input import bombs

def memory(what):
    with open("/proc/self/status") as file:
        return next(1024 * int(line.split()[1]) for line in file if line.startswith(what))

def parse(name, data):
    with tempfile.TemporaryDirectory() as folder:
        try:
            fuzz.PARSERS[name].parse(data, Path(folder))
        except CentraError:
            return "refused"
    return "accepted"

for name, honest in fuzz.seeds().items():  # What a parser imports is no cost of an input.
    if fuzz.PARSERS[name].share == 1:
        parse(name, honest[0])
for called, (name, data) in bombs().items():
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # The peak counts from here.
    before = memory("VmRSS")
    outcome = parse(name, data)
    print(called, len(data), memory("VmHWM") - before, outcome, sep="|", flush=True)
"""


def test_what_an_input_costs_is_bounded_by_its_size() -> None:
    # The limit is for what would otherwise take the machine with it.
    done = subprocess.run(
        [sys.executable, "-c", _CHILD],
        cwd=support.ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (12 << 30, 12 << 30)),
    )

    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.split("|") for line in done.stdout.splitlines()]
    assert {called for called, *_ in lines} == bombs().keys()
    too_much = [line for line in lines if int(line[2]) > FLOOR + COST * int(line[1])]
    assert too_much == []
    accepted = {called for called, _, _, outcome in lines if outcome == "accepted"}
    # Of a recipe the backbone decides, and so many tensors there may be.
    assert accepted == {"layers of a recipe", "header of many tensors"}
