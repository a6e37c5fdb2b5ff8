"""``sdegen-init``: a package of one's own, whole or not at all, that runs as its README says."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest

from tests.cases import ROOT
from tests.processes import call, python, script, typed

SKELETON = ROOT / "examples" / "own_package"
TINY = {
    "train": ["train.steps=2", "train.batch_size=8", "evaluate.budgets=[2]", "device=cpu"],
    "sample": ["n=8", "device=cpu"],
    "report": ["nfe=3", "device=cpu"],
}


def test_it_copies_the_example_and_nothing_else(tmp_path: Path) -> None:
    done = typed("init", "a/mine", cwd=tmp_path)
    assert done.code == 0 and "README.md says what to run" in done.out
    made = tmp_path / "a" / "mine"
    names = {str(p.relative_to(made)) for p in made.rglob("*") if p.is_file()}
    assert names == {
        "README.md", "pyproject.toml", "ownsde/__init__.py", "tests/test_own.py",
        "conf/sde/own.yaml", "conf/solver/own.yaml", "conf/experiment/own.yaml",
    }  # fmt: skip
    for name in names:
        assert (made / name).read_bytes() == (SKELETON / name).read_bytes()
    assert [p.name for p in made.parent.iterdir()] == ["mine"]


def test_what_is_there_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("kept")
    (tmp_path / "file").write_text("kept")
    (tmp_path / "empty").mkdir()
    for link, to in (("lost", "nowhere"), ("loop", "loop"), ("linked", "empty")):
        (tmp_path / link).symlink_to(to)
    for name, reason in (("full", "full is not empty"), ("file", "file is a file"),
                         ("lost", "lost is a link"), ("loop", "loop is a link"),
                         ("", "The folder has no name")):  # fmt: skip
        done = typed("init", name, cwd=tmp_path)
        assert done.code == 1 and done.err.startswith(f"sdegen: {reason}")
        assert done.err.count("\n") == 1
    held = ["empty", "file", "full", "linked", "loop", "lost"]
    assert sorted(p.name for p in tmp_path.iterdir()) == held
    assert typed("init", "linked", cwd=tmp_path).code == 0
    assert (tmp_path / "linked").is_symlink() and (tmp_path / "empty" / "README.md").is_file()


def test_it_fills_the_folder_that_one_is_in(tmp_path: Path) -> None:
    before = tmp_path.stat().st_ino
    assert typed("init", ".", cwd=tmp_path).code == 0
    assert (tmp_path / "README.md").is_file() and tmp_path.stat().st_ino == before


@pytest.mark.slow
def test_it_runs_as_its_readme_says(tmp_path: Path) -> None:
    """Every command in its order, made small; the package where pip puts it."""
    typed("init", "mine", cwd=tmp_path)
    made, site = tmp_path / "mine", tmp_path / "site"
    (block,) = re.findall(r"```bash\n(.*?)```", (made / "README.md").read_text(), re.DOTALL)
    install, *commands, tests = [shlex.split(line) for line in block.splitlines()]
    assert install[:2] == ["pip", "install"] and tests == ["python", "-m", "pytest"]
    how = [each for each in install[2:] if each not in ("-e", ".")]
    python("-m", "pip", "install", "-q", *how, "--target", site, made, cwd=tmp_path)
    for name, *arguments in commands:
        short = name.removeprefix("sdegen-")
        done = call([script(short), *arguments, *TINY[short]], made, PYTHONPATH=str(site))
        assert done.code == 0, done.err[-2000:]
    assert (made / "outputs" / "own" / "report.html").is_file()
    done = call([sys.executable, "-m", "pytest", "-q"], made, PYTHONPATH=str(site))
    assert done.code == 0 and "3 passed" in done.out, done.out
    code = "import sdegen as sg; print(sg.solvers.named('own_midpoint'))"
    assert "Midpoint" in python("-c", code, cwd=tmp_path, PYTHONPATH=str(site))
