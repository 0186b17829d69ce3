"""The structure of the package, read from its sources: no circle, no arrow up, imports at the top
of the file."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "marey"

ROOMS = (
    ("errors",),
    ("files",),
    ("video",),
    ("corruptions",),
    ("transforms",),
    ("layers",),
    ("losses", "order", "labels"),
    ("models",),
    ("datasets",),
    ("checkpoints",),
    ("metrics",),
    ("persons",),
    ("synthetic",),
    ("features",),
    ("attacks",),
    ("training",),
    ("inference",),
    ("evaluation",),
    ("teaching",),
    ("explain",),
    ("recipes",),
    ("papers",),
    ("web",),
    ("cli",),
    ("__main__",),
)
"""The rooms from the bottom up; a file imports from its own room and from rooms below, never from
above or beside."""

LAZY_ROOMS = ("cli",)
"""Rooms that import inside functions, so that `marey --help` starts without torch."""

OPTIONAL = frozenset(
    {
        "PIL",
        "accelerate",
        "captum",
        "cv2",
        "fastapi",
        "fastapi_offline",
        "foolbox",
        "google",
        "google_crc32c",
        "matplotlib",
        "mpl_toolkits",
        "onnx",
        "onnxruntime",
        "onnxscript",
        "peft",
        "pyarrow",
        "pybullet",
        "pybullet_data",
        "ray",
        "sentence_transformers",
        "sklearn",
        "starlette",
        "tensorboard",
        "tfrecord",
        "timm",
        "torchao",
        "torchmetrics",
        "transformers",
        "uvicorn",
    }
)
"""Packages of the extras: imported where they are needed, because they may be absent."""


def module_of(file: Path) -> str:
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_of(file): file for file in sorted(PACKAGE.rglob("*.py"))}


def imports_of(tree: ast.AST) -> Iterator[tuple[str, ast.stmt]]:
    """Each module or name a syntax tree imports, wherever the import stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import: {ast.unparse(node)}"
            yield from ((f"{node.module}.{alias.name}", node) for alias in node.names)


def file_of(name: str) -> str | None:
    """The module of the package that defines a dotted name; None for other packages."""
    while name and name not in FILES:
        name = name.rpartition(".")[0]
    return name or None


def arrows() -> dict[str, set[str]]:
    """File -> files of the package that it imports; the lazy face of the package imports all, so it
    is left out."""
    graph = {}
    for module, file in FILES.items():
        if module == "marey":
            continue
        targets = {file_of(name) for name, _ in imports_of(ast.parse(file.read_text()))}
        graph[module] = {target for target in targets if target} - {module, "marey"}
    return graph


def floor_of(module: str) -> int:
    room = module.split(".")[1]
    floors = [floor for floor, rooms in enumerate(ROOMS) if room in rooms]
    assert floors, f"{module}: its room '{room}' is not in ROOMS"
    return floors[0]


def circle_in(graph: dict[str, set[str]]) -> list[str]:
    """The modules of some circle, in order; empty if there is none."""
    done: set[str] = set()
    path: list[str] = []

    def visit(module: str) -> list[str]:
        if module in path:
            return [*path[path.index(module) :], module]
        if module in done:
            return []
        path.append(module)
        for target in sorted(graph.get(module, ())):
            if found := visit(target):
                return found
        path.pop()
        done.add(module)
        return []

    for module in sorted(graph):
        if found := visit(module):
            return found
    return []


def test_no_circle_between_files() -> None:
    circle = circle_in(arrows())
    assert not circle, " -> ".join(circle)


def test_a_circle_is_found() -> None:
    assert circle_in({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]


def test_no_room_imports_from_a_room_above_or_beside_it() -> None:
    wrong = []
    for module, targets in arrows().items():
        for target in sorted(targets):
            same_room = module.split(".")[1] == target.split(".")[1]
            if not same_room and floor_of(target) >= floor_of(module):
                wrong.append(f"{module} -> {target}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("module", sorted(FILES))
def test_imports_stand_at_the_top(module: str) -> None:
    tree = ast.parse(FILES[module].read_text())
    is_lazy_face = any(
        isinstance(node, ast.FunctionDef) and node.name == "__getattr__" for node in tree.body
    )
    if is_lazy_face or module.startswith(tuple(f"marey.{room}" for room in LAZY_ROOMS)):
        return
    inside = {
        node
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    wrong = {
        f"{module}:{node.lineno}: {ast.unparse(node)}"
        for name, node in imports_of(tree)
        if node in inside and name.split(".")[0] not in OPTIONAL
    }
    assert not wrong, "\n".join(sorted(wrong))


def test_no_module_is_named_in_a_string_and_imported_later() -> None:
    wrong = []
    for module, file in FILES.items():
        for node in ast.walk(ast.parse(file.read_text())):
            if (
                isinstance(node, ast.Constant)
                and isinstance(node.value, str)
                and node.value.startswith("marey.")
            ):
                name = node.value.split(":")[0]
                if name in FILES and name != "marey" and module != "marey":
                    wrong.append(f"{module}:{node.lineno}: {node.value!r}")
    assert not wrong, "\n".join(wrong)
