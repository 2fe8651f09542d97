"""The plan of the house: which way imports run, how large a room may grow, what it is called."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ORDER = ("mongosplit", "worker", "producer", "ops")
LARGEST_FILE = 250
BANNED = {"utils", "helpers", "manager", "common", "base", "core", "misc", "service", "handler"}
FILES = [path for package in ORDER for path in sorted((ROOT / package).rglob("*.py"))]


def imports(path: Path) -> Iterator[tuple[str, ast.AST]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module, node


def package_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_ops_producer_worker_mongosplit_and_never_back(path: Path) -> None:
    allowed = ORDER[: ORDER.index(package_of(path)) + 1]
    for module, node in imports(path):
        top = module.partition(".")[0]
        assert top not in ORDER or top in allowed, f"line {node.lineno}: {module}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_mongosplit_imports_no_celery_and_no_command_line(path: Path) -> None:
    tops = {module.partition(".")[0] for module, _ in imports(path)}
    if package_of(path) == "mongosplit":
        assert not tops & {"celery", "kombu", "billiard", "click", "rich", "redis"}
    if package_of(path) == "worker":
        assert not tops & {"click", "rich"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_says_what_it_owns_and_stays_small(path: Path) -> None:
    text = path.read_text()
    docstring = ast.get_docstring(ast.parse(text)) or ""
    first = docstring.partition("\n\n")[0]
    assert first.endswith("."), "the module docstring begins with a sentence"
    assert len(text.splitlines()) <= LARGEST_FILE
    assert path.stem not in BANNED


def test_there_is_no_import_cycle() -> None:
    graph = {module_name(path): set(own_imports(path)) for path in FILES}
    done: set[str] = set()

    def visit(module: str, above: tuple[str, ...]) -> None:
        assert module not in above, " -> ".join((*above, module))
        if module not in done:
            for imported in graph.get(module, ()):
                visit(imported, (*above, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def own_imports(path: Path) -> Iterator[str]:
    tree = ast.parse(path.read_text())
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    known = {module_name(found) for found in FILES}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and id(node) not in typing_only:
            for alias in node.names:
                deeper = f"{node.module}.{alias.name}"
                name = deeper if deeper in known else node.module
                if name in known and name != module_name(path):
                    yield name


def test_only_settings_reads_mongosplit_variables_from_the_environment() -> None:
    for path in FILES:
        if package_of(path) != "ops" and path.name not in ("settings.py", "local_workers.py"):
            assert "os.environ" not in path.read_text(), path
            assert "getenv" not in path.read_text(), path


def test_no_requirement_names_a_registry_and_every_one_is_pinned_by_hash() -> None:
    text = (ROOT / "requirements" / "all.txt").read_text()
    assert "://" not in text
    pinned = [line for line in text.splitlines() if "==" in line and not line.startswith("#")]
    assert pinned
    assert all(line.endswith("\\") for line in pinned)
