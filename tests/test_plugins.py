"""Python files of the user's own see the modules of their folder, and nothing else changes."""

import importlib.util
import sys
from pathlib import Path

import pytest

import models
from core.errors import UserError
from core.plugins import code_files, code_hashes, import_plugin, modules_beside

LATE = "def get():\n    import {0}\n\n    return {0}\n"


def write(folder: Path, **texts: str) -> Path:
    """Write these modules; gives the folder."""
    folder.mkdir(exist_ok=True, parents=True)
    for name, text in texts.items():
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    return folder


def test_two_files_each_import_the_modules_of_their_own_folder(tmp_path):
    before = {name: sys.modules[name] for name in ("core", "models")}
    body = "from models import size\n\n\ndef get():\n    import late\n\n    return size, late.number\n"
    for number in (1, 2):
        folder = write(tmp_path / str(number), models=f"size = {number}\n", late=f"number = {number}\n", network=body)
        assert import_plugin(folder / "network.py", "get")() == (number, number)
    assert {name: sys.modules[name] for name in before} == before
    assert "late" not in sys.modules and importlib.util.find_spec("late") is None


def test_a_neighbour_is_imported_once_and_is_the_same_at_every_call(tmp_path):
    folder = write(tmp_path, a="import near\n" + LATE.format("near") + "top = get\nearly = lambda: near\n", near="")
    near = import_plugin(folder / "a.py", "early")()
    assert import_plugin(folder / "a.py", "get")() is import_plugin(folder / "a.py", "get")() is near


def test_a_file_is_run_once(tmp_path):
    count = f"from pathlib import Path\nwith Path({str(tmp_path / 'runs')!r}).open('a') as log:\n    log.write('x')\n"
    folder = write(tmp_path, a=count + "def one(): return 1\ndef two(): return 2\n")
    assert (import_plugin(folder / "a.py", "one")(), import_plugin(folder / "a.py", "two")()) == (1, 2)
    assert (tmp_path / "runs").read_text() == "x"


def test_within_the_block_of_another_folder_each_file_sees_the_modules_of_its_own(tmp_path):
    one = write(tmp_path / "one", a=LATE.format("models"), models="")
    two = write(tmp_path / "two", a=LATE.format("models"), models="")
    first, second = (import_plugin(folder / "a.py", "get") for folder in (one, two))
    with modules_beside(one):
        with modules_beside(two):
            assert first().__file__ == str(one / "models.py")
            assert second().__file__ == str(two / "models.py")
        import models as within

        assert within is first()
    assert sys.modules["models"] is models


def test_modules_are_put_back_after_an_error_within_the_block(tmp_path):
    folder = write(tmp_path, a="import models\n\n\ndef get():\n    raise KeyError('x')\n", models="")
    finders = list(sys.meta_path)
    with pytest.raises(UserError, match=r"a.py: get\(\) failed \(line 5, KeyError: 'x'\)"):
        import_plugin(folder / "a.py", "get")()
    assert sys.modules["models"] is models and sys.meta_path == finders


def test_an_installed_library_stays_although_a_neighbour_has_its_name(tmp_path):
    folder = write(tmp_path, a=LATE.format("pytest"), pytest="")
    assert import_plugin(folder / "a.py", "get")() is pytest
    assert sys.modules["pytest"] is pytest


def test_a_folder_of_data_hides_no_module_of_its_name(tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "weights.bin").touch()
    assert import_plugin(write(tmp_path, a=LATE.format("models")) / "a.py", "get")() is models


def test_a_files_code_is_the_file_and_what_it_imported_from_its_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "plugin", a="import near\n" + LATE.format("parts.late"), near="import json\n", other="")
    write(tmp_path / "plugin" / "parts", late="")
    file = Path("plugin/a.py")
    get = import_plugin(file, "get")
    assert code_files(file) == (file, Path("plugin/near.py"))
    assert get().__file__ == str(tmp_path / "plugin" / "parts" / "late.py")
    assert code_files(file) == (file, Path("plugin/near.py"), Path("plugin/parts/late.py"))
    before = code_hashes(file)
    assert list(before) == ["a.py", "near.py", "parts/late.py"]
    write(tmp_path / "plugin", near="import csv\n")
    assert {name for name, digest in code_hashes(file).items() if digest != before[name]} == {"near.py"}


def test_a_missing_file_or_function_is_named_in_one_line(tmp_path):
    with pytest.raises(UserError, match=r"there is no Python file .*a.py: check the path"):
        import_plugin(tmp_path / "a.py", "get")
    with pytest.raises(UserError, match=r"a.py has no function get\(\): define it"):
        import_plugin(write(tmp_path, a="get = 3\n") / "a.py", "get")


def test_a_file_that_failed_may_be_mended_and_imported_again(tmp_path):
    folder = write(tmp_path, a="x = 1\nraise ValueError('two\\nlines')\n")
    with pytest.raises(UserError, match=r"a.py: the file failed \(line 2, ValueError: two lines\)"):
        import_plugin(folder / "a.py", "get")
    write(folder, a="def get(): return 42\n")
    assert import_plugin(folder / "a.py", "get")() == 42
