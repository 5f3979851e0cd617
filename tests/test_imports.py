"""The house's rules about who may import whom, read from the source itself (see the table in the design notes)."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OURS = ("semslam", "networks", "sequences")

VALUE_MODULES = (
    "camera",
    "frame",
    "poses",
    "labels",
    "trajectory",
    "cloud",
    "config",
    "images",
    "atomic",
    "compiled",
    "stage",
)
VALUES = {"semslam", *(f"semslam.{name}" for name in VALUE_MODULES)}
ENGINE = ("semslam.engine", "semslam.tracking", "semslam.loops")
# The doors through which networks enter the rest: they import them inside functions, so that a map needs no torch.
NETWORK_DOORS = {"semslam.perception", "semslam.runs", "semslam.commands"}
# Entry points that need images to train or score on; everything else in networks/ works on tensors.
ENTRY_POINTS = ("train", "score")
SLOW_TO_IMPORT = {"torch", "open3d", "matplotlib", "cv2", "numba", "onnxruntime", "openvino", "onnx", "plotly", "h5py"}


@dataclass(frozen=True)
class Import:
    """One imported module, and whether it is imported when the importing module is."""

    module: str
    at_once: bool
    line: int


def is_type_checking(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def imports_of(source: str, module: str) -> list[Import]:
    """Every import of a module's source, TYPE_CHECKING blocks left out."""
    found: list[Import] = []

    def walk(node: ast.AST, at_once: bool) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                found.extend(Import(alias.name, at_once, child.lineno) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                base = child.module or ""
                if child.level:
                    base = ".".join([*module.split(".")[: -child.level], *([base] if base else [])])
                # `from semslam import poses` imports semslam.poses: name both, the test asks for what exists
                found.append(Import(base, at_once, child.lineno))
                found.extend(Import(f"{base}.{a.name}", at_once, child.lineno) for a in child.names if base in OURS)
            elif isinstance(child, ast.stmt) and is_type_checking(child):
                continue
            else:
                walk(child, at_once and not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda))

    walk(ast.parse(source), True)
    return found


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_name(path): path for package in OURS for path in sorted((ROOT / package).rglob("*.py"))}
IMPORTS = {
    name: [
        found
        for found in imports_of(path.read_text(), name + ".__init__" if path.name == "__init__.py" else name)
        # a class or function taken from a package is no module
        if not found.module.startswith(OURS) or found.module in SOURCES or found.module in OURS
    ]
    for name, path in SOURCES.items()
}


def within(module: str, packages: set[str] | tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(package + ".") for package in packages)


def wrong(importer: str, found: Import) -> str:
    return f"{SOURCES[importer].relative_to(ROOT)}:{found.line} imports {found.module}"


def test_the_reader_of_imports_sees_what_is_imported_when() -> None:
    source = (
        "import numpy as np\nfrom semslam import poses\nfrom typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    import torch\n"
        "try:\n    import cv2\nexcept ImportError:\n    pass\n"
        "class A:\n    import yaml\n    def f(self):\n        from networks.joint.network import Net\n"
    )
    at_once = {found.module for found in imports_of(source, "semslam.x") if found.at_once}
    later = {found.module for found in imports_of(source, "semslam.x") if not found.at_once}
    assert at_once == {"numpy", "semslam", "semslam.poses", "typing", "cv2", "yaml"}
    assert later == {"networks.joint.network"}
    assert {found.module for found in imports_of("from .camera import Camera", "semslam.x")} == {"semslam.camera"}


def test_networks_import_the_values_the_metrics_and_sequences_at_the_entry_points() -> None:
    assert not [
        wrong(name, found)
        for name, imports in IMPORTS.items()
        if name.startswith("networks")
        for found in imports
        if within(found.module, ("semslam", "sequences"))
        and found.module not in VALUES
        and not within(found.module, ("semslam.metrics",))
        and not (
            found.module.split(".")[0] == "sequences"
            and (not found.at_once or any(word in name for word in ENTRY_POINTS))
        )
    ]


def test_sequences_import_only_the_values_of_semslam() -> None:
    assert not [
        wrong(name, found)
        for name, imports in IMPORTS.items()
        if name.startswith("sequences")
        for found in imports
        if within(found.module, ("semslam", "networks")) and found.module not in VALUES
    ]


def test_values_import_only_values() -> None:
    assert not [
        wrong(name, found)
        for name in sorted(VALUES & set(IMPORTS))
        for found in IMPORTS[name]
        if within(found.module, OURS) and found.module not in VALUES
    ]


def test_the_engine_knows_no_files_no_networks_and_no_windows() -> None:
    outside = {"torch", "open3d", "matplotlib", "networks", "sequences", "semslam.cli", "semslam.metrics"}
    outside |= {f"semslam.{room}" for room in ("geometry", "rendering", "looking", "judging", "comparison", "runs")}
    assert not [
        wrong(name, found)
        for name in sorted(IMPORTS)
        if within(name, ENGINE)
        for found in IMPORTS[name]
        if within(found.module, tuple(outside))
    ]


def test_networks_enter_semslam_by_its_doors_and_only_when_used() -> None:
    assert not [
        wrong(name, found)
        for name, imports in IMPORTS.items()
        if name.startswith("semslam")
        for found in imports
        if within(found.module, ("networks", "torch")) and (found.at_once or not within(name, NETWORK_DOORS))
    ]


def test_the_command_line_imports_nothing_slow_before_it_answers() -> None:
    """Follows the imports that happen at once from semslam.cli; any path to a slow library is named."""
    if "semslam.cli" not in IMPORTS:
        return
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
        for node in ast.walk(ast.parse(path.read_text())):
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
    for path in SOURCES.values():
        for node in ast.walk(ast.parse(path.read_text())):
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
