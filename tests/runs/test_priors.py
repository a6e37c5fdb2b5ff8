"""Priors of runs: made once, kept in the run's folder and known by who made them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import sdegen as sg
from sdegen.files import read_header
from sdegen.runs.build import build_data
from sdegen.runs.folder import WEIGHTS, content_of, load_run
from sdegen.runs.students import as_student
from sdegen.training.checkpoint import CHECKPOINT
from tests.cases import refused
from tests.configs import composed
from tests.trainers import train_alone

TINY = ("train.batch_size=8", "train.log_every=1", "train.warmup=0", "device=cpu")
SMALL = ("net.width=8", "net.heads=2", "evaluate.budgets=[2]")
FEW = ("data.train.sets.1.n=20", "data.train.sets.1.nfe=2", "evaluate.budgets=[2]")
NAME = "prior-0.safetensors"


def trained(folder: Path, *overrides: str, steps: int = 2) -> Path:
    """A run of a few steps in a folder, compared by one solver."""
    config = composed("train", *TINY, f"train.steps={steps}", *overrides)
    solvers = {"ddim": config["evaluate"]["solvers"]["ddim"]}
    evaluate = {**config["evaluate"], "solvers": solvers}
    train_alone({**config, "evaluate": evaluate}, folder)
    return folder


def learned(folder: Path, base: str | Path, *more: str, steps: int = 2) -> Path:
    """A class more over a base, with its prior."""
    how = ("experiment=adapt/dreambooth", f"base.run={base}")
    return trained(folder, *how, *FEW, *more, steps=steps)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder at work, of a base and of a run over it by a relative path."""
    monkeypatch.chdir(tmp_path)
    trained(Path("base"), "experiment=digits", *SMALL)
    learned(Path("w"), "base")
    return tmp_path


def prior(config: dict[str, Any]) -> torch.Tensor:
    """The samples of a run's data."""
    x: torch.Tensor = build_data({**config, "packages": []})[0].sets[1].x
    return x


def test_they_are_made_once_and_go_with_the_run(home: Path, tmp_path: Path) -> None:
    made = (home / "w" / NAME).stat().st_mtime_ns
    about = read_header(home / "w" / NAME)
    assert about["by"] == content_of(home / "base")
    assert read_header(home / "w" / WEIGHTS)["config"]["data"]["train"]["sets"][1].keys() == {
        "_target_", "run", "n", "nfe", "seed", "levels", "content"
    }  # fmt: skip
    x = prior(load_run(home / "w", [], "cpu").config)
    learned(home / "w", home / "base", steps=3)  # by an absolute path: the same base
    assert (home / "w" / NAME).stat().st_mtime_ns == made
    (home / "far").mkdir()
    for name in ("base", "w"):
        shutil.move(home / name, home / "far" / name)
    run = load_run(home / "far" / "w", [], "cpu")
    assert torch.equal(prior(run.config), x)
    learned(home / "far" / "w", "far/base", steps=4)
    assert read_header(home / "far" / "w" / CHECKPOINT)["step"] == 4
    (home / "far" / "w").rename(home / "far" / "again")  # and a student's data are its teacher's
    config = composed("train", "experiment=distill/progressive", "teacher.run=far/again")
    assert torch.equal(prior(as_student(config)), x)


@pytest.mark.slow
def test_another_run_is_refused(home: Path) -> None:
    """Trained anew under its name too, with the samples there or deleted."""
    other = "data.train.sets.1.run=other"
    trained(Path("other"), "experiment=digits", *SMALL)
    learned(Path("v"), "base", other)
    learned(Path("v"), "base", other, steps=3)
    shutil.rmtree("other")
    trained(Path("other"), "experiment=digits", *SMALL, "train.seed=1")
    with refused("are another run's than other is now, or were made otherwise"):
        learned(Path("v"), "base", other, steps=4)
    with refused("are another run's than base is now, or were made otherwise"):
        learned(Path("w"), "base", "data.train.sets.1.seed=4", steps=3)
    Path("v", NAME).unlink()
    with refused("was made with data.train.sets = "):
        learned(Path("v"), "base", other, steps=4)
    assert sg.load("v").nfe == 0
