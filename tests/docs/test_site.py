"""The site: every public name has its place, docstrings keep their words, notebooks run."""

from __future__ import annotations

import html
import json
import re
import sys
from pathlib import Path

import pytest

import sdegen as sg
from tests.cases import ROOT
from tests.processes import call

sys.path.insert(0, str(ROOT / "docs"))
from api import plain, rooms

NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))


def test_docstrings_keep_their_words() -> None:
    """Paragraphs, lists of arguments, equations: nothing is read as markup but ``code``."""
    text = "Of x (b, *) and ``y_``.\n\nx:    a state_ (b, *),\n      or |two|\ny, z: `more`"
    text += "\n\n  dx = *f*"
    made = plain.as_rest(text.splitlines())
    assert made == [
        r"Of x (b, \*) and ``y_``.", "",
        "``x``", r"    a state\_ (b, \*),", r"    or \|two\|", "``y, z``", r"    \`more\`", "",
        "::", "", "      dx = *f*", "",
    ]  # fmt: skip


def test_the_reference_has_every_public_name(tmp_path: Path) -> None:
    rooms.write(tmp_path)
    written = "".join(path.read_text(encoding="utf-8") for path in tmp_path.glob("*.rst"))
    for room in sg.ROOMS:
        for name in room.__all__:
            assert re.search(rf":: {re.escape(room.__name__)}\.{name}$", written, re.M), name
    index = (tmp_path / "index.rst").read_text(encoding="utf-8")
    told = set(re.findall(r"sdegen\.(\w+) <", index))
    assert told == {n for n in sg.__all__ if type(getattr(sg, n)).__name__ != "module"}


def test_notebooks_hold_no_outputs() -> None:
    assert len(NOTEBOOKS) == 3
    for path in NOTEBOOKS:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        assert not any(cell.get("outputs") for cell in cells), path
        assert path.stat().st_size < 20_000


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    """Offline, and with every notebook run to its end: what they assert holds."""
    out = tmp_path / "site"
    where = ["-d", tmp_path / "trees", ROOT / "docs", out]
    done = call([sys.executable, "-m", "sphinx", "-W", "-q", "-b", "html", *where], ROOT)
    assert done.code == 0, done.out + done.err
    page = re.sub(r"<[^>]*>", "", (out / "api" / "sampling.html").read_text(encoding="utf-8"))
    words = html.unescape(page)
    assert "a shape (b, *) to draw from" in words  # what a docstring says of ``start``,
    assert not re.search(r"start:\s+a shape", words)  # which is a term of a list there
    for name in ("index", "solvers", "add-a-solver", "page", "report"):
        assert (out / f"{name}.html").is_file(), name
    for path in NOTEBOOKS:
        text = (out / "notebooks" / f"{path.stem}.html").read_text(encoding="utf-8")
        assert "_images/" in text, path


def test_every_page_is_in_the_contents() -> None:
    """A page that no contents lead to is one that nobody finds, and a warning of the build."""
    listed = set(re.findall(r"^([a-z-]+)$", (ROOT / "docs" / "conf.py").read_text(), re.M))
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")} - {"index"}
    assert pages <= listed
