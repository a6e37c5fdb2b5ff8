"""The page of a run: one scale for its panels, and words that are true of what was measured."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import sdegen as sg
from sdegen.report import run as page
from sdegen.report.run import cell, last_name, measured
from sdegen.runs.folder import Run


def row(frechet: float | None, sliced: float | None, said: str | None = "command") -> list[Any]:
    """A line of the table."""
    return ["heun", 4, 0.1, frechet, sliced, said]


def test_what_lies_outside_is_counted() -> None:
    x = torch.zeros(100, 2)
    x[:7, 1] = 50.0
    assert "7 of 100 outside" in cell(x, "points", 2.0, "heun, 4 calls")
    assert "outside" not in cell(x[7:], "points", 2.0, "heun, 4 calls")


def test_one_solve_that_diverged_does_not_set_the_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    halves = []

    def far(model: Any, shape: Any, *, solver: Any, **how: Any) -> Any:
        scale = 1e6 if solver == sg.DDIM() else 1.0
        x = scale * torch.randn(shape, generator=torch.Generator().manual_seed(0))
        return SimpleNamespace(x=x, status=torch.zeros(len(x)), nfe=torch.tensor([4]))

    def seen(x: Any, kind: str, half: float, told: str) -> str:
        halves.append(half)
        return ""

    monkeypatch.setattr(page, "solve", far)
    monkeypatch.setattr(page, "cell", seen)
    monkeypatch.setattr(page, "arrived", lambda status: status == 0)
    nodes = {
        name: {"_target_": f"sdegen.solvers.{name}"} for name in ("DDIM", "Heun", "DPMSolverPP")
    }
    model = sg.ScoreModel(lambda x, t: x, sg.VPSDE())
    config = {"evaluate": {"solvers": nodes, "budgets": [4], "seed": 0}, "walk": None}
    run = Run(Path("here"), model, config, [2], [], (), None)
    settings: Any = SimpleNamespace(packages=[], seed=0)
    page.grids(run, settings, "points")
    assert len(halves) == 3 and max(halves) < 10


def test_words_say_what_was_measured() -> None:
    plain: Any = SimpleNamespace(config={})
    restores: Any = SimpleNamespace(config={"task": {"_target_": "x"}})
    assert measured(plain, [row(1.0, 0.1)]).startswith("Frechet distance")
    assert measured(plain, [row(None, 0.1)]).startswith("Sliced Wasserstein distance to held-out")
    assert measured(plain, [row(None, None)]).startswith("No data are held out")
    assert "A command" not in measured(restores, [row(None, 0.1, None)])
    assert "was restored" in measured(restores, [row(None, 0.1, None)])


def test_data_of_a_file_has_its_name() -> None:
    assert last_name({"_target_": "a.from_file", "path": "here/mine.npy"}) == "from_file mine.npy"
    assert last_name({"_target_": "a.toy", "name": "moons"}) == "toy moons"
