"""The examples of clips and of score distillation."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import sdegen as sg
from sdegen.exact import Gaussian
from tests.cases import ROOT, close
from tests.processes import typed


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_means_of_what_follows_are_exact_by_bayes_rule_alone() -> None:
    errors = example("moving_digits").errors_of_means()
    assert errors["MMPS"] < 0.03  # std 0.05 and a start without the mean are left
    assert errors["replacement"] > 0.15 > errors["PiGDM"]


def test_rays_are_those_of_beer_and_lambert() -> None:
    volume = example("score_distillation").Volume()
    with torch.no_grad():
        volume.raw.fill_(-2.0)
    straight = volume(torch.zeros(1))
    depth = 16 * F.softplus(torch.tensor(-2.0))
    close(straight, (1 - 2 * torch.exp(-depth)).expand(1, 1, 8, 8), rtol=1e-5)
    with torch.no_grad():
        volume.raw.normal_(generator=torch.Generator().manual_seed(0))
    front, back, again = volume(torch.tensor([0.4, 0.4 + math.pi, 0.4 + 2 * math.pi])).detach()
    close(front.flip(-1), back, atol=1e-4, rtol=0)  # from behind it is its mirror image
    close(front, again, atol=1e-4, rtol=0)
    # A quarter around, what was to the side is in front: rows of the cube stay rows.
    with torch.no_grad():
        volume.raw.fill_(-9.0)
        volume.raw[:, :, :, 6:8] = 3.0
    rows = volume(torch.tensor([0.0, math.pi / 2])).detach()
    close(rows[0, 0, 3], rows[1, 0, 3], atol=1e-2, rtol=0)
    assert rows[:, 0, 3].min() > 0.9 and rows[:, 0, 0].max() < -0.9


def test_blobs_are_sums_of_ink() -> None:
    blobs = example("score_distillation").Blobs(2, k=1)
    with torch.no_grad():
        blobs.at.fill_(0.125), blobs.size.fill_(-4.0), blobs.ink.fill_(20.0)
    x = blobs().detach()
    assert x.shape == (2, 1, 8, 8) and x[0, 0, 4, 4] > 0.99
    x[:, :, 4, 4] = -1
    close(x, torch.full_like(x, -1.0), atol=1e-5)


def test_what_is_drawn_goes_where_the_model_has_it() -> None:
    """A density whose pictures are to be one picture, of a Gaussian about it."""
    module = example("score_distillation")
    torch.manual_seed(0)
    volume, wanted = module.Volume(), torch.full((64,), -0.8)
    wanted.reshape(8, 8)[2:6, 3:5] = 0.8
    problem, sde = Gaussian(wanted, torch.full((64,), 0.01)), sg.VPSDE()

    def denoise(x: Tensor, t: Tensor, y: Tensor) -> Tensor:  # the same of every class
        return problem.denoise(x.flatten(1), sde(t)).reshape(x.shape)

    model = sg.ScoreModel(denoise, sde, "x0")
    told = model.given(y=torch.zeros(4, dtype=torch.int64))
    module.distil(told, volume, lambda: (torch.zeros(4),), 150, 1.0, lr=0.1)
    off = (volume(torch.zeros(1)).detach().flatten() - wanted).abs()
    assert off.mean() < 0.1


@pytest.mark.slow
def test_clips_are_measured(tmp_path: Path) -> None:
    """On a run that has learned nothing."""
    figures = example("moving_digits").main(str(tmp_path), quick=True)
    kept = json.loads((tmp_path / "result.json").read_text())["figures"]
    assert len(kept) == len(figures) == 13 and (tmp_path / "picture.png").is_file()


@pytest.mark.slow
def test_digits_in_space_are_drawn(tmp_path: Path) -> None:
    few = ["net.width=8", "net.heads=2", "train.steps=1", "evaluate.budgets=[2]"]
    few += [f"~evaluate.solvers.{name}" for name in ("euler_maruyama", "ddpm", "heun", "dpmpp")]
    done = typed("train", *few, "device=cpu", cwd=tmp_path)
    assert done.code == 0, done.err
    run = str(tmp_path / "outputs" / "digits")
    shares = example("score_distillation").main(str(tmp_path), run, quick=True)
    assert len(shares) == 4 and all(0 <= share <= 1 for share in shares.values())
    assert (tmp_path / "picture.png").is_file() and (tmp_path / "result.json").is_file()
