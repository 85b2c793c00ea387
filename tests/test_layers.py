"""Imports run downwards: every folder uses only folders below it, and only the libraries it should."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SUBFOLDERS = (
    "runs",
    "training",
    "queries",
    "audits",
    "findings",
    "reports",
    "pipeline",
    "tasks",
)  # of compleak/, from the bottom up
BELOW = {  # the folders that a folder may import beside itself
    "core": (),
    "models": ("core",),
    "data": ("core",),
    "attacks": ("core",),
    "defenses": ("core", "models"),
    "pruning": ("core", "models"),
    "quantization": ("core", "models"),
    "clustering": ("core", "models"),
}
TOP_LEVEL = (*BELOW, "compleak")
# Scripts: they may import everything, and nothing imports them.
STAGE_SCRIPTS = {
    "pruning/prune.py",
    "quantization/qat.py",
    "quantization/ptq.py",
    "clustering/clustering.py",
}


def imported(file: Path) -> set[str]:
    """The dotted names of all modules that a file imports, at the top or inside functions."""
    names = set()
    package = ".".join(file.relative_to(ROOT).parent.parts)
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = f"{package}.{node.module}" if node.level else node.module
            names |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    return names


def files(folder: str) -> list[Path]:
    python_files = [
        file for file in sorted((ROOT / folder).rglob("*.py")) if str(file.relative_to(ROOT)) not in STAGE_SCRIPTS
    ]
    assert python_files
    return python_files


def project_imports(names: set[str]) -> set[str]:
    """The project's folders and scripts among these modules."""
    project = {*TOP_LEVEL, "tests", "benchmarks", *(file.stem for file in ROOT.glob("*.py"))}
    return {name.split(".")[0] for name in names} & project


@pytest.mark.parametrize("folder", BELOW)
def test_a_folder_imports_only_itself_and_the_folders_below_it(folder):
    wrong = {file.name: project_imports(imported(file)) - {folder, *BELOW[folder]} for file in files(folder)}
    assert not {name: parts for name, parts in wrong.items() if parts}


@pytest.mark.parametrize("subfolder", SUBFOLDERS)
def test_a_subfolder_of_compleak_imports_only_itself_those_below_it_and_the_top_level_folders(subfolder):
    allowed = SUBFOLDERS[: SUBFOLDERS.index(subfolder) + 1]
    for file in files(f"compleak/{subfolder}"):
        names = imported(file)
        assert project_imports(names) <= set(TOP_LEVEL), file
        imported_subfolders = {name.split(".")[1] for name in names if name.startswith("compleak.")}
        assert imported_subfolders <= set(allowed), f"{file}: {imported_subfolders - set(allowed)}"
        assert not {f"{Path(script).parent}.{Path(script).stem}" for script in STAGE_SCRIPTS} & names, file


def test_compleak_holds_only_its_listed_subfolders():
    assert {path.name for path in (ROOT / "compleak").iterdir() if path.name != "__pycache__"} == {
        "__init__.py",
        *SUBFOLDERS,
    }


@pytest.mark.parametrize(
    ("folder", "allowed"),
    [
        ("attacks", {"numpy", "scipy", "sklearn", "torch"}),
        ("models", {"torch", "onnx"}),  # onnx in `to_onnx` alone
        ("models/foreign", {"numpy", "torch", "onnx", "onnxruntime", "transformers", "safetensors", "ai_edge_litert"}),
    ],
)
def test_a_lower_layer_uses_only_the_libraries_it_should(folder, allowed):
    inner = ROOT / folder / "foreign"  # has an entry of its own
    for file in [file for file in files(folder) if not file.is_relative_to(inner)]:
        libraries = {name.split(".")[0] for name in imported(file)} - set(sys.stdlib_module_names)
        room = folder.split("/")[0]
        assert libraries <= allowed | {room, *BELOW[room]}, file.name


def test_only_the_neural_attacks_import_torch():
    neural = {file.stem for file in files("attacks") if "torch" in {name.split(".")[0] for name in imported(file)}}
    assert neural == {"samia", "nn", "mr", "rapid", "dsq", "seqmia_versions", "neural", "networks", "ml_leak"}


def test_all_scripts_in_folders_find_the_project_in_the_same_way():
    names = set()
    lines = set()
    folders = (*BELOW, "compleak", "benchmarks", "examples", "tests")
    for file in [*ROOT.glob("*.py"), *(file for folder in folders for file in (ROOT / folder).rglob("*.py"))]:
        path_lines = [line for line in file.read_text(encoding="utf-8").splitlines() if "sys.path" in line]
        if path_lines and file != Path(__file__):
            names.add(str(file.relative_to(ROOT)))
            lines |= set(path_lines)
    assert lines == {"    sys.path[0] = str(Path(__file__).resolve().parents[1])"}
    assert names == STAGE_SCRIPTS | {f"benchmarks/{name}.py" for name in ("bench", "gpu_check", "peers", "sensitivity")}
