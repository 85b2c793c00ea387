"""What README.md and results/README.md point at must be in the repository, not only on the disk of who wrote them."""

import re
import subprocess
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).parent.parent
LINK = re.compile(r"\]\(([^)\s]+)\)|^\[[^\]]+\]: *(\S+)", re.M)  # [text](target), and [name]: target


def relative_links(text):
    """Targets within the repository, without their #anchor; code is not read."""
    prose = re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.S)
    targets = [inline or named for inline, named in LINK.findall(prose)]
    return [unquote(t.split("#")[0]) for t in targets if not re.match(r"[a-z]+:|#", t)]


def committed():
    """Every file that git tracks, and every folder that has one."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    files = {PurePosixPath(name) for name in listed.split("\0") if name}
    return files | {folder for file in files for folder in file.parents}


def test_links_are_found_in_every_form_and_code_is_left_alone():
    text = "[a](x/y.md#part) ![b](z.png)\n[c]: d.csv\n[e](https://f.org) [g](#h) `[i](j)`\n```\n[k](l)\n```\n"
    assert relative_links(text) == ["x/y.md", "z.png", "d.csv"]


@pytest.mark.parametrize("page", ["README.md", "results/README.md"])
def test_every_relative_link_of_a_page_is_committed(page):
    known, folder = committed(), (ROOT / page).parent
    links = relative_links((ROOT / page).read_text())
    assert PurePosixPath(page) in known and links
    there = {link: (folder / link).resolve().relative_to(ROOT.resolve()) for link in links}
    assert not [link for link, path in there.items() if PurePosixPath(path.as_posix()) not in known]
