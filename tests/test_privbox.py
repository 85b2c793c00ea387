"""Task files of PrivBox: they are read as they stand, run, and their numbers are right."""

from pathlib import Path

import pytest

from compleak.tasks.yaml_files import check_keys, read_yaml
from core.errors import UserError


def write_task(folder: Path, text: str) -> Path:
    file = folder / "task.yaml"
    file.write_text(text, encoding="utf-8")
    return file


# Reading YAML


def test_plain_yaml_is_read_and_numbers_with_an_exponent_are_numbers(tmp_path):
    file = write_task(tmp_path, "lr: 2e-4\nrate: 1.5E3\nday: 2024-13-45\nlist: [1, two, -3e+2]\nnone:\n")
    content = {"lr": 2e-4, "rate": 1500.0, "day": "2024-13-45", "list": [1, "two", -300.0], "none": None}
    assert read_yaml(file) == content


def test_an_alias_that_does_not_grow_is_read(tmp_path):
    assert read_yaml(write_task(tmp_path, "a: &x [1, 2]\nb: *x\n")) == {"a": [1, 2], "b": [1, 2]}


BOMB = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "a: 1\nb: !!python/object/apply:os.system ['touch RAN']\n",
            "line 2: the tag '!!python/object/apply:os.system'",
        ),
        ("a: !mine 1\n", "line 1: the tag '!mine' is not plain YAML"),
        ("a: 1\nb: 2\na: 3\n", "line 3: the key 'a' stands twice"),
        ("a:\n\tb: 1\n", "line 2: a tab where YAML wants spaces"),
        (BOMB, "with its aliases written out it holds more than 20,000 values"),
        ("a: &a\n  <<: [*a, *a]\n", "an alias holds itself"),
        ("[" * 100_000, "line 1: lists and mappings are nested more than 40 deep"),
        ("a: {b: [1\n", "line 2: "),
        ("a: 1\n---\nb: 1\n", "line 2: a second document"),
        ("a: 1\nb: 0x_\n", "line 2: '0x_' cannot be read as a number"),
        ("a: " + "9" * 5000 + "\n", "cannot be read as a number"),
        ("a: 1\nb: \x01\n", "line 2: a character that no text holds"),
        ("? [1, 2]\n: 3\n", "line 1: found unhashable key"),
        ("", "is empty"),
        ("# nothing\n", "is empty"),
        ("#" * 1_000_001, "has more than 1,000,000 bytes"),
    ],
    ids=lambda value: value[:25].strip(),
)
def test_hostile_and_broken_yaml_is_refused_in_one_line_and_nothing_is_run(tmp_path, monkeypatch, text, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as refusal:
        read_yaml(write_task(tmp_path, text))
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 400
    assert [file.name for file in tmp_path.iterdir()] == ["task.yaml"]


def test_a_file_that_is_no_text_or_not_there_is_refused_in_one_line(tmp_path):
    (tmp_path / "bytes.yaml").write_bytes(b"a: 1\nb: \xff\n")
    with pytest.raises(UserError, match="line 2: not UTF-8"):
        read_yaml(tmp_path / "bytes.yaml")
    for path in (tmp_path / "missing.yaml", tmp_path):
        with pytest.raises(UserError, match="is not a file"):
            read_yaml(path)


KNOWN = {"models": list, "name": str, "rate": float, "count": int, "flag": bool, "seed": (int, type(None))}


@pytest.mark.parametrize(
    "content", [{}, {"rate": 1, "count": 2, "flag": True, "seed": None}, {"rate": 0.5, "models": [], "name": "x"}]
)
def test_keys_that_are_known_and_of_their_type_pass(content):
    check_keys(content, KNOWN, "task.yaml")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"modles": []}, "there is no key 'modles'; did you mean 'models'?"),
        ({"zzz": 1}, "there is no key 'zzz'; the keys are models, name, rate, count, flag, seed"),
        ({3: 1}, "there is no key 3; the keys are"),
        ({"models": "a"}, "models must be a list, not a text ('a')"),
        ({"count": True}, "count must be a whole number, not true or false (True)"),
        ({"count": 1.5}, "count must be a whole number, not a number (1.5)"),
        ({"rate": float("nan")}, "rate must be a number, not a number (nan)"),
        ({"rate": False}, "rate must be a number"),
        ({"seed": "x"}, "seed must be a whole number or nothing, not a text ('x')"),
        ({"name": None}, "name must be a text, not nothing"),
        ({"rate": 1}, "the key 'name' is missing: add it"),
        (["name"], "a mapping (key: value) is wanted here, not a list"),
    ],
)
def test_unknown_wrong_and_missing_keys_are_named_in_one_line(content, words):
    with pytest.raises(UserError) as refusal:
        check_keys(content, KNOWN, "task.yaml", required=["name"] if content == {"rate": 1} else ())
    assert str(refusal.value).startswith("task.yaml: ")
    assert words in str(refusal.value)
