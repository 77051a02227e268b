"""What holds for the source as a whole: who may import whom, and what importing costs."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

import pytest

from tests.support import ROOT, imported_by

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PACKAGES = ("centra", "registry", "cli", "migrations")
ALLOWED = {
    "centra": {"centra"},
    "registry": {"registry", "centra", "migrations"},
    "migrations": {"migrations", "registry", "centra"},
    "cli": {"cli", "registry", "centra"},
}
FILES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
OURS = {*PACKAGES, "tests", "benchmarks"}


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(tree: ast.Module) -> Iterator[str]:
    """The top-level package of each import, wherever it stands, and of our own named in strings."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (alias.name.partition(".")[0] for alias in names)
            case ast.ImportFrom(module=module, level=level):
                assert level == 0, "imports are absolute"
                yield str(module).partition(".")[0]
            case ast.Call(
                func=ast.Attribute(attr="import_module"), args=[ast.Constant(value=str() as name)]
            ):
                yield name.partition(".")[0]


def bound(tree: ast.Module) -> set[str]:
    """The names that a module binds at its top level, under ``if`` and ``try`` too."""
    names: set[str] = set()
    todo: list[ast.stmt] = list(tree.body)
    while todo:
        match todo.pop():
            case (
                ast.FunctionDef(name=name)
                | ast.AsyncFunctionDef(name=name)
                | ast.ClassDef(name=name)
            ):
                names.add(name)
            case ast.Assign(targets=targets):
                names |= {n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)}
            case ast.AnnAssign(target=ast.Name(id=name)):
                names.add(name)
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                names |= {alias.asname or alias.name.partition(".")[0] for alias in aliases}
            case ast.If(body=body, orelse=orelse):
                todo += body + orelse
            case _:
                pass
    return names


def exported(tree: ast.Module) -> list[str]:
    """``__all__``, or nothing."""
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id="__all__")], value=value):
                found: list[str] = ast.literal_eval(value)
                return found
    return []


def test_every_package_is_a_package() -> None:
    folders = {path.parent for path in FILES}
    assert [str(folder) for folder in folders if not (folder / "__init__.py").is_file()] == []


@pytest.fixture(scope="module")
def sources() -> dict[Path, ast.Module]:
    """Every file of the product, parsed."""
    return {path.relative_to(ROOT): parsed(path) for path in FILES}


def test_imports_run_from_cli_to_registry_to_centra_alone(sources: dict[Path, ast.Module]) -> None:
    wrong = {
        str(path): sorted(against)
        for path, tree in sources.items()
        if (against := {*imports(tree)} & OURS - ALLOWED[path.parts[0]])
    }
    assert wrong == {}


def test_every_module_says_what_it_is(sources: dict[Path, ast.Module]) -> None:
    # An empty __init__.py has nothing to say.
    silent = [str(p) for p, tree in sources.items() if tree.body and not ast.get_docstring(tree)]
    assert silent == []


def test_what_a_module_exports_is_there_once(sources: dict[Path, ast.Module]) -> None:
    exports = {path: exported(tree) for path, tree in sources.items()}
    twice = [str(path) for path, names in exports.items() if len({*names}) < len(names)]
    absent = {
        str(path): missing
        for path, names in exports.items()
        if (missing := sorted({*names} - bound(sources[path])))
    }
    assert (twice, absent) == ([], {})


def test_migrating_imports_no_torch(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'registry.db'}"
    imported = imported_by(
        f"from registry.database.engine import make_engine; from registry.database.migrations import upgrade; upgrade(make_engine({url!r}))"
    )
    assert "alembic" in imported
    assert not imported & {"torch", "transformers", "boto3"}


def test_migrations_stand_on_sqlalchemy_and_alembic_alone() -> None:
    for path in (ROOT / "migrations" / "versions").glob("*.py"):
        ours = {
            "__future__",
            "alembic",
            "sqlalchemy",
            "datetime",
            "hashlib",
            "json",
            "typing",
            "uuid",
        }
        assert set(imports(parsed(path))) <= ours


def test_no_code_of_a_folder_or_the_hub_is_trusted_anywhere() -> None:
    loading = [
        node
        for folder in (*PACKAGES, "benchmarks", "examples")
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "from_pretrained"
    ]
    assert loading
    for call in loading:
        (trusted,) = (k.value for k in call.keywords if k.arg == "trust_remote_code")
        assert ast.literal_eval(trusted) is False


def test_no_modules_import_each_other_in_a_circle() -> None:
    modules = {module_name(path): path for path in FILES if path.name != "env.py"}
    waiting = {name: imported_at_once(path, modules) - {name} for name, path in modules.items()}
    while ready := [name for name, needed in waiting.items() if not needed & waiting.keys()]:
        for name in ready:
            del waiting[name]
    assert sorted(waiting) == []


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_at_once(path: Path, modules: dict[str, Path]) -> set[str]:
    """The modules of ours that importing a file imports, late ones and those of types aside."""
    found: set[str] = set()
    for node in parsed(path).body:
        match node:
            case ast.ImportFrom(module=str() as module, names=names):
                places = {f"{module}.{alias.name}" for alias in names}
                found |= places & modules.keys() or {module} & modules.keys()
            case ast.Import(names=names):
                found |= {alias.name for alias in names} & modules.keys()
    return found
