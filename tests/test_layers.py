"""Imports run downwards: attacks and models know nothing of the rest of the project."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECT = {path.stem for path in ROOT.glob("*.py")} | {path.parent.name for path in ROOT.glob("*/*.py")}


def imported(file: Path) -> set[str]:
    """Top-level names of all modules the file imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(file.parent.name if node.level else node.module.split(".")[0])
    return names


def files(folder: str):
    found = sorted((ROOT / folder).rglob("*.py"))
    assert found
    return found


@pytest.mark.parametrize("folder", ["attacks", "models"])
def test_a_lower_layer_imports_nothing_of_the_project_but_itself(folder):
    assert {file.name: imported(file) & PROJECT - {folder} for file in files(folder)} == {
        file.name: set() for file in files(folder)
    }


@pytest.mark.parametrize(
    ("folder", "allowed"), [("attacks", {"numpy", "scipy", "joblib", "sklearn", "torch"}), ("models", {"torch"})]
)
def test_a_lower_layer_uses_only_the_libraries_it_should(folder, allowed):
    for file in files(folder):
        assert imported(file) - set(sys.stdlib_module_names) <= allowed | {folder}, file.name


def test_only_the_neural_attacks_import_torch():
    assert {file.stem for file in files("attacks") if "torch" in imported(file)} == {"samia", "nn", "mr", "training"}
