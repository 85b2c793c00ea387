"""README.md and docs/: their command lines work, their links lead to files of the repository, README stays short."""

import re
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from attacks import dsq

ROOT = Path(__file__).resolve().parents[1]
COMMAND_PAGES = ["README.md", "results/README.md", *(f"docs/{page.name}" for page in sorted(ROOT.glob("docs/*.md")))]
PAGES = [*COMMAND_PAGES, "LOG.md"]

# These run tiny, in this order, so that each finds what it reads whatever page it stands on.
STAGES = (
    *("examples/write_signals.py", "examples/ship_models.py", "audit.py", "train.py", "pruning/prune.py"),
    *("quantization/qat.py", "quantization/ptq.py", "clustering/clustering.py"),
    *("CompLeakNR.py", "CompLeakSR.py", "CompLeakMR.py", "export.py", "query.py"),
)
IN_A_PROCESS = (  # at first, as printed
    *("examples/write_signals.py", "examples/ship_models.py", "quantization/qat.py", "clustering/clustering.py"),
)
ONLY_PARSED = (
    "reproduce.py",
    "benchmarks/bench.py",
    "benchmarks/sensitivity.py",
)  # they take minutes to hours, a download, a GPU or Ray
UNSHRUNK = (  # words of commands that are only parsed
    "--boundary_points",  # needs an extra
    "results/purchase100_mlp_selena_25/split_ai_signals.npz",  # lies elsewhere in a tiny run
    "letters_mlp_w1_broad_seed7",  # `reproduce.py` makes this run
    "fashion_mnist_resnet18_broad_seed7",  # and this one
    "results/fashion_mnist_resnet18_broad_seed7_selena_25/split_ai_signals.npz",
)
TASK_FILES = ("task.yaml", "examples/privbox/tasks/mem_inf.yaml")  # parsed here, and run by tests of their own
RUN_ELSEWHERE = ("examples/privbox/train_target.py",)  # by tests/test_privbox.py
MIA_PRUNE = ("pretrain.py", "prune.py", "mia.py", "prune_dp.py")  # scripts of mia_prune, left in its table
SELENA = ("prepare_datatset.py",)  # of SELENA, spelt as there
SHELL = {  # neither one of our scripts nor make
    "python -m pytest",
    "pip install -r requirements.txt",
    "pip install .[ray]",
    "jupyter notebook CompLeakMR.ipynb",
    "nvidia-cuda-mps-control -d",
    "ray start --head",
    "ray start --address FIRST:6379",
}
AUTHORS = """
train.py --dataset_name cifar10 --model_name resnet18 --num_cls 10 --lr 0.1 --epochs 100 --batch_size 128
pruning/prune.py --dataset_name cifar10 --model_name resnet18 --num_cls 10 --lr 0.001 --prune_epochs 30 --prune_sparsity 0.6
quantization/qat.py --dataset_name cifar10 --model_name resnet18 --num_cls 10 --lr 0.001 --quantized_epochs 30 --degree int8
clustering/clustering.py --dataset_name cifar10 --model_name resnet18 --num_cls 10 --lr 0.00001 --epochs 30 --bit 2
CompLeakNR.py --model_name resnet18 --dataset_name cifar10 --num_cls 10 --batch_size 128 --original
CompLeakNR.py --compress_degree 0.6 --dataset_name cifar10 --num_cls 10 --batch_size 128 --compress --compress_name pruning --model_name resnet18
CompLeakNR.py --compress_degree int8 --dataset_name cifar10 --num_cls 10 --batch_size 128 --compress --compress_name quantization --model_name resnet18
CompLeakNR.py --compress_degree 4 --dataset_name cifar10 --num_cls 10 --batch_size 128 --compress --compress_name clustering --model_name resnet18
CompLeakSR.py --compress_degree 0.6 --dataset_name cifar10 --num_cls 10 --batch_size 128 --original --compress --model_name resnet18 --compress_name pruning
CompLeakSR.py --compress_degree int8 --dataset_name cifar10 --num_cls 10 --batch_size 128 --original --compress --model_name resnet18 --compress_name quantization
CompLeakSR.py --compress_degree 4 --dataset_name cifar10 --num_cls 10 --batch_size 128 --original --compress --model_name resnet18 --compress_name clustering
"""  # noqa: E501


def read(page: str) -> str:
    return (ROOT / page).read_text()


def without_code(text: str) -> str:
    return re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.S)


def block_commands(text: str) -> list[list[str]]:
    """The command lines of all ```bash blocks, split as a shell splits them, without comments."""
    lines = "\n".join(re.findall(r"```bash\n(.*?)```", text, re.S)).replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def inline_commands(text: str) -> list[list[str]]:
    """The `python ...` and `make ...` commands within sentences and tables."""
    prose = re.sub(r"```.*?```", "", text, flags=re.S)
    return [shlex.split(command) for command in re.findall(r"`((?:python|make) [^`\n]+)`", prose)]


def commands_of(pages: list[str]) -> list[tuple[str, ...]]:
    """Every command of the pages, each once."""
    texts = [read(page) for page in pages]
    commands = [tuple(words) for text in texts for words in (*block_commands(text), *inline_commands(text))]
    return list(dict.fromkeys(commands))


def python_commands(scripts) -> list[tuple[str, list[str]]]:
    """(script, arguments) of the commands that start one of these scripts, in the order of the scripts."""
    commands = [words[1:] for words in commands_of(COMMAND_PAGES) if words[0] == "python" and words[1] in scripts]
    commands = [words for words in commands if words[1:2] not in [(file,) for file in TASK_FILES]]
    return sorted(((name, list(arguments)) for name, *arguments in commands), key=lambda c: scripts.index(c[0]))


def module_of(script: str):
    return import_module(script.removesuffix(".py").replace("/", "."))


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A folder with 200 images of ten classes, and a table of 400 rows of four classes as Purchase100's."""
    folder = tmp_path_factory.mktemp("documented")
    rng = np.random.default_rng(0)
    for label in "abcdefghij":
        for part, number in (("train", 12), ("test", 8)):
            (folder / "images" / part / label).mkdir(parents=True)
            for i in range(number):
                pixels = rng.integers(256, size=(32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / "images" / part / label / f"{i}.png")
    rows = np.hstack([np.arange(400)[:, None] % 4 + 1, rng.integers(2, size=(400, 16))])
    (folder / "tables").mkdir()
    np.savetxt(folder / "tables" / "dataset_purchase", rows, fmt="%d", delimiter=",")
    return folder


def tiny_version(script: str, arguments: list[str], root: Path) -> list[str]:
    """The arguments with the flags that make the command tiny put behind them."""
    if "--label_queries" in arguments:
        arguments = [*arguments, "--label_queries", "2"]
    if "--defend selena" in " ".join(arguments):
        arguments = [*arguments, "--defend_arg", "5"]
    if "--signals" in arguments or script.startswith("examples/"):
        return arguments
    if script == "audit.py":
        return [*arguments, "--root", str(root), "--max_points", "200", "--threads", "1"]
    tiny = ["--root", str(root), "--width", "0.125"]
    if script == "train.py":
        data = "tables" if "purchase100" in arguments else "images"
        tiny += ["--data_dir", str(root / data), "--max_points", "40"]
    if script in ("CompLeakMR.py", "query.py") and "--split_ai" not in arguments:
        tiny += ["--variants", "pruning_0.6", "quantization_int8", "clustering_4"]
    epochs = {"pruning/prune.py": "--prune_epochs", "quantization/qat.py": "--quantized_epochs"}
    if script in ("quantization/ptq.py", "export.py"):
        return [*arguments, *tiny]
    attack = script.startswith("CompLeak") or script == "query.py"
    return [*arguments, *tiny, *(["--sensitivity_draws", "1"] if attack else [epochs.get(script, "--epochs"), "1"])]


@pytest.mark.slow
def test_every_stage_command_runs_tiny(root, monkeypatch):
    monkeypatch.chdir(root)
    monkeypatch.setattr(dsq, "LEAST_STEPS", 1)
    commands = python_commands(STAGES)
    assert {script for script, _ in commands} == set(STAGES)
    apart = list(IN_A_PROCESS)
    for script, arguments in commands:
        print("python", script, *arguments)
        if set(UNSHRUNK) & set(arguments):
            module_of(script).parse(arguments)
            continue
        tiny = tiny_version(script, arguments, root)
        if script in apart:
            apart.remove(script)
            subprocess.run([sys.executable, ROOT / script, *tiny], check=True)
        else:
            module_of(script).main(tiny)
    table = root / "results_pruning/cifar10_resnet18_w0.125_ppb_4_undefended_original_adaptive_0.7/NR.csv"
    attacks = set(pd.read_csv(table, keep_default_na=False)["attack"])
    assert attacks == {"samia", "threshold", "null", "blind"}  # what the page on mia_prune asks for


def test_every_other_command_is_understood_by_its_script():
    commands = python_commands(ONLY_PARSED)
    assert {script for script, _ in commands} == set(ONLY_PARSED)
    for script, arguments in commands:
        module_of(script).parse(arguments)


def test_every_command_of_the_docs_is_tested():
    for words in commands_of(COMMAND_PAGES):
        if words[0] == "make":
            assert re.search(rf"^{words[1]}:", read("Makefile"), re.M), words
        elif " ".join(words) not in SHELL:
            assert words[0] == "python" and words[1] in (*STAGES, *ONLY_PARSED, *RUN_ELSEWHERE, *MIA_PRUNE, *SELENA), (
                words
            )


def test_the_task_files_of_the_docs_are_understood(tmp_path):
    blocks = [block for page in COMMAND_PAGES for block in re.findall(r"```yaml\n(.*?)```", read(page), re.S)]
    tasks = [block for block in blocks if re.search("^models:", block, re.M)]
    assert len(tasks) >= 2
    for block in tasks:
        if "members:" not in block:
            block += "members: a\nnonmembers: b\n"
        (tmp_path / "task.yaml").write_text(block)
        (task,) = module_of("audit.py").parse([str(tmp_path / "task.yaml")])
        assert task.models[0].name == "original"
    (task,) = module_of("audit.py").parse([str(ROOT / TASK_FILES[1])])
    assert len(task.privbox) == 3


def test_the_authors_command_lines_are_on_the_page_of_stages():
    page = read("docs/stages.md")
    assert {tuple(["python", *line.split()]) for line in AUTHORS.strip().splitlines()} <= set(
        map(tuple, block_commands(page))
    )
    for numbers in ("0.6, 0.7, 0.8 and 0.9", "2, 3 and 4", "4, 8 and 16"):
        assert numbers in page


def test_each_command_of_mia_prune_has_a_counterpart():
    rows = [line.split(" | ") for line in read("docs/from-mia-prune.md").splitlines() if line.startswith("| `python ")]
    assert rows and all("`python " in here for _, here in rows)


def test_commands_are_found_in_blocks_and_sentences():
    text = 'run `python a.py --b 1`\n```bash\npython c.py \\\n    --d "e f"   # why\n\nmake g\n```\n'
    assert block_commands(text) == [["python", "c.py", "--d", "e f"], ["make", "g"]]
    assert inline_commands(text) == [["python", "a.py", "--b", "1"]]


def relative_links(text: str) -> list[str]:
    """Targets of [text](target) that are not on the web, with their #anchor; code is not read."""
    targets = re.findall(r"\]\(([^)\s]+)\)", without_code(text))
    return [unquote(target) for target in targets if not re.match(r"[a-z]+:", target)]


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives a page's headings."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def committed() -> set[PurePosixPath]:
    """Every file that git tracks, and every folder that has one."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    files = {PurePosixPath(name) for name in listed.split("\0") if name}
    return files | {folder for file in files for folder in file.parents}


def test_links_of_texts_and_images_are_found_and_code_is_left_alone():
    text = "[a\nb](x/y.md#part) ![c](z.png)\n[e](https://f.org) [g](#h) `[i](j)`\n```\n[k](l)\n```\n"
    assert relative_links(text) == ["x/y.md#part", "z.png", "#h"]
    assert anchors("# One, two: `three`\n## How strong is it?\n") == {"one-two-three", "how-strong-is-it"}


@pytest.mark.parametrize("page", PAGES)
def test_every_link_of_a_page_leads_to_a_committed_file_and_a_heading(page):
    known = committed()
    folder = (ROOT / page).parent
    assert PurePosixPath(page) in known
    for link in relative_links(read(page)):
        target, _, anchor = link.partition("#")
        path = (folder / target).resolve() if target else ROOT / page
        assert PurePosixPath(path.relative_to(ROOT).as_posix()) in known, link
        if anchor:
            assert anchor in anchors(path.read_text()), link


def test_readme_links_to_every_page_of_docs():
    links = {link.partition("#")[0] for link in relative_links(read("README.md"))}
    assert {page for page in COMMAND_PAGES if page.startswith("docs/")} <= links


def test_readme_is_short_and_begins_with_the_quick_start():
    text = read("README.md")
    assert len(text.split()) <= 2100
    first = text.splitlines()[:30]
    assert "## Quick start" in first and any(line.startswith("make demo") for line in first)
