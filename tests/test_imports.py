"""The rules of the house, read from the source itself: which room may import which, and how large a room may grow."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OURS = ("semslam", "networks", "sequences")

# The floors, from the ground up. A module imports from its own room and from the floors below; rooms on one floor do
# not know each other. It makes no difference whether an import is at the top, in a function or under TYPE_CHECKING.
VALUES = (
    "camera",
    "frame",
    "poses",
    "robust",
    "trajectory",
    "labels",
    "cloud",
    "config",
    "images",
    "files",
    "compiled",
    "stage",
    "threads",
    "cholesky",
)
FLOORS: tuple[tuple[str, ...], ...] = (
    tuple(f"semslam.{name}" for name in VALUES),
    ("semslam.metrics",),
    ("sequences",),
    ("networks",),
    ("semslam.rendering",),
    ("semslam.geometry",),
    ("semslam.engine",),
    ("semslam.tracking",),
    ("semslam.loops",),
    ("semslam.depth",),
    ("semslam.perception", "semslam.slam"),
    ("semslam.doctor",),
    ("semslam.runs",),
    ("semslam.judging",),
    ("semslam.comparison", "semslam.looking", "semslam.single_image"),
    ("semslam.batch",),
    ("semslam.commands", "semslam.cli"),
    ("semslam",),  # the package's own __init__, through which others import
)
# Floors whose names are modules of one room: these may import each other, without a circle.
ONE_ROOM = (FLOORS[0], ("semslam.perception", "semslam.slam"), ("semslam.commands", "semslam.cli"))
MOST_MODULES = 14  # in a folder
MOST_PARAMETERS = 8  # of a function; constructors and commands have as many as there are settings

# Below what they would be allowed by their floor: the loops that make the map need no file, window or network.
KEPT_APART = {
    ("semslam.engine", "semslam.tracking", "semslam.loops"): (
        *("sequences", "networks", "semslam.metrics", "semslam.rendering", "semslam.geometry"),
        *("torch", "open3d", "matplotlib"),
    ),
}
SLOW_TO_IMPORT = {"torch", "open3d", "matplotlib", "cv2", "numba", "onnxruntime", "openvino", "onnx", "plotly", "h5py"}


@dataclass(frozen=True)
class Import:
    """One imported module, and whether it is imported when the importing module is."""

    module: str
    at_once: bool
    line: int


def imports_of(source: str, module: str) -> list[Import]:
    """Every import of a module's source; those under TYPE_CHECKING or in a function do not happen at once."""
    found: list[Import] = []

    def walk(node: ast.AST, at_once: bool) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                found.extend(Import(alias.name, at_once, child.lineno) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                base = child.module or ""
                if child.level:
                    base = ".".join([*module.split(".")[: -child.level], *([base] if base else [])])
                for alias in child.names:
                    # `from semslam import poses` imports semslam.poses, `from semslam import Slam` the package itself
                    named = f"{base}.{alias.name}"
                    found.append(Import(named if named in SOURCES else base, at_once, child.lineno))
            else:
                later = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or (
                    isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
                )
                walk(child, at_once and not later)

    walk(ast.parse(source), True)
    return found


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_name(path): path for package in OURS for path in sorted((ROOT / package).rglob("*.py"))}
TREES = {name: ast.parse(path.read_text()) for name, path in SOURCES.items()}
IMPORTS = {
    name: imports_of(path.read_text(), name + ".__init__" if path.name == "__init__.py" else name)
    for name, path in SOURCES.items()
}


def within(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(package + ".") for package in packages)


def home(module: str) -> tuple[int, str]:
    """The floor of a module, and the name in FLOORS that it stands under; the longest name decides."""
    stands = [
        (len(name), floor, name) for floor, names in enumerate(FLOORS) for name in names if within(module, (name,))
    ]
    _, floor, name = max(stands)
    return floor, name


def may_import(importer: str, imported: str) -> bool:
    (floor, room), (other_floor, other) = home(importer), home(imported)
    same = room == other or any(room in names and other in names for names in ONE_ROOM)
    return other_floor < floor or same


def wrong(importer: str, found: Import) -> str:
    return f"{SOURCES[importer].relative_to(ROOT)}:{found.line} imports {found.module}"


def our_imports() -> Iterator[tuple[str, Import]]:
    for name, imports in IMPORTS.items():
        for found in imports:
            if found.module in SOURCES and found.module != name:
                yield name, found


def circles(arrows: dict[str, set[str]]) -> list[set[str]]:
    """The groups of names that reach each other (Tarjan's strongly connected components of more than one)."""
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(name: str) -> None:
        order[name] = lowest[name] = len(order)
        stack.append(name)
        for other in arrows.get(name, ()):
            if other not in order:
                visit(other)
            if other in stack:
                lowest[name] = min(lowest[name], lowest[other])
        if lowest[name] == order[name]:
            group = set(stack[stack.index(name) :])
            del stack[stack.index(name) :]
            if len(group) > 1:
                found.append(group)

    for name in arrows:
        if name not in order:
            visit(name)
    return found


def test_the_reader_of_imports_sees_what_is_imported_when() -> None:
    source = (
        "import numpy as np\nfrom semslam import poses, Slam\nfrom typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    import torch\n"
        "try:\n    import cv2\nexcept ImportError:\n    pass\n"
        "class A:\n    import yaml\n    def f(self):\n        from networks.joint.network import Net\n"
    )
    at_once = {found.module for found in imports_of(source, "semslam.x") if found.at_once}
    later = {found.module for found in imports_of(source, "semslam.x") if not found.at_once}
    assert at_once == {"numpy", "semslam", "semslam.poses", "typing", "cv2", "yaml"}
    assert later == {"torch", "networks.joint.network"}
    assert {found.module for found in imports_of("from .camera import Camera", "semslam.x")} == {"semslam.camera"}


def test_the_finder_of_circles_finds_them() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set()}) == [{"b", "c"}]
    assert circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_every_module_has_a_room_and_every_room_exists() -> None:
    assert not [name for name in SOURCES if name.startswith("semslam.") and home(name)[1] == "semslam"]
    rooms = {home(name)[1] for name in SOURCES}
    assert not [name for names in FLOORS for name in names if name not in rooms]


def test_imports_go_down_and_never_up_or_across() -> None:
    assert not [wrong(name, found) for name, found in our_imports() if not may_import(name, found.module)]


def test_no_modules_import_each_other_in_a_circle() -> None:
    arrows: dict[str, set[str]] = {name: set() for name in SOURCES}
    for name, found in our_imports():
        arrows[name].add(found.module)
    assert not circles(arrows)


def test_no_folders_import_each_other_in_a_circle() -> None:
    """A module directly in a package stands for itself: it is no room."""

    def folder(module: str) -> str:
        return module if SOURCES[module].parent.name in OURS else ".".join(SOURCES[module].relative_to(ROOT).parts[:2])

    arrows: dict[str, set[str]] = {folder(name): set() for name in SOURCES}
    for name, found in our_imports():
        if folder(name) != folder(found.module):
            arrows[folder(name)].add(folder(found.module))
    assert not circles(arrows)


def test_no_room_is_larger_than_a_stranger_can_look_over() -> None:
    modules: dict[Path, int] = {}
    for path in SOURCES.values():
        modules[path.parent] = modules.get(path.parent, 0) + (path.name != "__init__.py")
    assert not {str(folder.relative_to(ROOT)): n for folder, n in modules.items() if n > MOST_MODULES}


def test_functions_take_few_parameters() -> None:
    """Constructors and the commands' signatures, which are their settings, aside."""
    found = []
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or node.name == "__init__":
                continue
            if any(ast.unparse(decorator).split("(")[0].endswith(".command") for decorator in node.decorator_list):
                continue
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            count = sum(argument.arg not in ("self", "cls") for argument in arguments)
            if count > MOST_PARAMETERS:
                found.append(f"{SOURCES[name].relative_to(ROOT)}:{node.lineno} {node.name} takes {count} parameters")
    assert not found


def test_what_makes_the_map_needs_no_file_network_or_window() -> None:
    assert not [
        wrong(name, found)
        for rooms, kept_out in KEPT_APART.items()
        for name in SOURCES
        if within(name, rooms)
        for found in IMPORTS[name]
        if within(found.module, kept_out)
    ]


def test_networks_enter_semslam_only_when_they_are_used() -> None:
    """So that a map of a sensor's depth needs no torch."""
    assert not [
        wrong(name, found)
        for name, imports in IMPORTS.items()
        if within(name, ("semslam", "sequences"))
        for found in imports
        if within(found.module, ("networks", "torch")) and found.at_once
    ]


def test_networks_work_on_tensors_and_only_training_on_data_sets() -> None:
    assert not [
        wrong(name, found)
        for name, imports in IMPORTS.items()
        if within(name, ("networks",)) and not within(name, ("networks.training",))
        for found in imports
        if within(found.module, ("sequences",)) and found.at_once
    ]


def test_the_command_line_imports_nothing_slow_before_it_answers() -> None:
    """Follows the imports that happen at once from semslam.cli; any path to a slow library is named."""
    waiting, seen, slow = [("semslam.cli",)], set(), []
    while waiting:
        path = waiting.pop()
        if path[-1] in seen or path[-1] not in IMPORTS:
            continue
        seen.add(path[-1])
        for found in IMPORTS[path[-1]]:
            if found.at_once and found.module.split(".")[0] in SLOW_TO_IMPORT:
                slow.append(" -> ".join([*path, found.module]))
            elif found.at_once:
                waiting.append((*path, found.module))
    assert not slow


def test_libraries_do_not_print_exit_evaluate_strings_or_unpickle() -> None:
    forbidden_calls = {"print", "eval", "exec", "exit", "quit", "sys.exit", "os._exit", "logging.basicConfig"}
    forbidden_calls |= {"sys.path.append", "sys.path.insert"}
    found = []
    for name, path in SOURCES.items():
        if name.split(".")[-1] in ("cli", "__main__"):
            continue
        for node in ast.walk(TREES[name]):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in forbidden_calls:
                found.append(f"{path.relative_to(ROOT)}:{node.lineno} calls {ast.unparse(node.func)}")
        found += [
            wrong(name, imported)
            for imported in IMPORTS[name]
            if imported.module.split(".")[0] in {"pickle", "dill", "joblib", "cloudpickle"}
        ]
    assert not found


def test_nothing_is_read_through_pickle() -> None:
    """NumPy and torch fall back to pickle when asked: they must not be asked."""
    found = []
    for name, path in SOURCES.items():
        for node in ast.walk(TREES[name]):
            if not isinstance(node, ast.Call):
                continue
            arguments = {k.arg: ast.unparse(k.value) for k in node.keywords}
            called = ast.unparse(node.func)
            pickled = arguments.get("allow_pickle") == "True"
            unsafe = called == "torch.load" and arguments.get("weights_only") != "True"
            if pickled or unsafe:
                found.append(f"{path.relative_to(ROOT)}:{node.lineno} calls {called} in a way that unpickles")
    assert not found


def test_nothing_of_ours_imports_a_library_with_a_copyleft_licence() -> None:
    assert not [
        wrong(name, found)
        for name, imports in IMPORTS.items()
        for found in imports
        if found.module.split(".")[0] in {"evo", "gradslam"}
    ]
