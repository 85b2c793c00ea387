"""A full disk, a place that cannot be written to, a locale that is not UTF-8: one line, or no difference at all."""

import os
import resource
import subprocess
import sys

import pytest
from conftest import NETWORK, ROOT, TINY

from core.errors import UserError
from core.files import write_json, write_text


def train(root, limit=None, **environment):
    """train.py in a process of its own, with a limit on the size of files in bytes."""

    def set_limit():
        if limit:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    command = [sys.executable, "train.py", *NETWORK, *TINY, "--root", str(root), "--roles", "victim_model"]
    env = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=env, preexec_fn=set_limit)


@pytest.mark.slow
def test_a_full_disk_ends_training_in_one_line_and_leaves_no_half_written_file(tmp_path):
    done = train(tmp_path, limit=100_000)
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert "model.pt cannot be written (File too large): make room there" in done.stderr
    assert not list(tmp_path.rglob("*.tmp*")) and not list(tmp_path.rglob("model.pt"))
    assert train(tmp_path).returncode == 0  # goes on from there


def test_a_root_that_is_a_file_ends_in_one_line(tmp_path):
    (tmp_path / "root").touch()
    done = train(tmp_path / "root")
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert "Not a directory" in done.stderr


def test_text_is_written_as_utf_8_whatever_the_locale(tmp_path):
    code = (
        "from pathlib import Path; from core.files import write_text; write_text(Path('page.md'), '50.0 \\u00b1 1.3')"
    )
    env = {**os.environ, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C", "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, check=True)
    assert (tmp_path / "page.md").read_bytes() == "50.0 ± 1.3".encode()


def test_a_terminal_without_utf_8_shows_a_question_mark_and_not_a_traceback():
    code = "from core.console import run_script, say; run_script(lambda argv: say('50.0 \\u00b1 1.3'))"
    env = {**os.environ, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True)
    assert done.returncode == 0 and done.stdout == b"50.0 ? 1.3\n"


@pytest.mark.parametrize("write", [lambda file: write_text(file, "x"), lambda file: write_json(file, {})])
def test_a_folder_that_cannot_be_made_is_named(tmp_path, write):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="the folder .*file/below cannot be made"):
        write(tmp_path / "file" / "below" / "x.json")
