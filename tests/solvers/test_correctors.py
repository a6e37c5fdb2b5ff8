"""Predictor and corrector by hand."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

import sdegen as sg
from tests.cases import Replay, Smooth, close, normal, run

NET = Smooth()


def langevin_by_hand(
    x: Tensor, model: sg.ScoreModel, at: sg.Level, a: float, z: Tensor, kind: str
) -> Tensor:
    """Song et al.'s corrector, as in algs. 4-5 and in their code: norms, or their means."""
    score = model(x, at).score
    noise, length = z.flatten(1).norm(dim=1), score.flatten(1).norm(dim=1)
    if kind == "batch":
        noise, length = noise.mean(), length.mean()
    e = torch.as_tensor(2 * a * (0.16 * noise / length) ** 2).reshape(-1, 1, 1)
    if kind == "annealed":
        e = 2 * a * (0.16 * at.sigma) ** 2
    return x + e * score + (2 * e) ** 0.5 * z


class Streams(sg.Noise):
    """Draws for the solver and, apart, for its corrector."""

    def __init__(self, mine: list[Tensor], other: list[Tensor]) -> None:
        self.mine, self.other = Replay(mine), Replay(other)

    def __call__(self, x: Tensor, t: sg.sde.Instant, s: sg.sde.Instant) -> Tensor:
        return self.mine(x, t, s)

    def stream(self, name: str) -> sg.Noise:
        assert name == "corrector"
        return self.other


@pytest.mark.parametrize("when", ["after", "before"])
@pytest.mark.parametrize("kind", ["sample", "batch", "annealed"])
@pytest.mark.parametrize("sde", [sg.VPSDE(), sg.VESDE()], ids=["vp", "ve"])
def test_predictor_and_corrector_by_hand(sde: sg.LinearSDE, kind: str, when: str) -> None:
    """Song et al. (2021), alg. 1; a = 1 - beta_i for VP, 1 for VE."""
    corrector = sg.solvers.AnnealedLangevin() if kind == "annealed" else sg.Langevin(norms=kind)  # type: ignore[arg-type]
    solver = sg.PredictorCorrector(sg.solvers.ReverseDiffusion(), corrector, n=2, when=when)  # type: ignore[arg-type]
    model, walk = sg.ScoreModel(NET, sde, "v"), sg.walks.log_snr(sde, 3)
    x = start = float(sde.prior.std) * normal(4, 2, 2)
    mine = [normal(4, 2, 2, seed=k) for k in range(3)]
    other = [normal(4, 2, 2, seed=10 + k) for k in range(6)]
    draws = iter(other)
    for (t, s), z in zip(pairwise(sde(walk).unbind()), mine, strict=True):
        a = float((t.alpha / s.alpha) ** 2)

        def correct(x: Tensor, at: sg.Level, a: float = a) -> Tensor:
            for _ in range(2):
                x = langevin_by_hand(x, model, at, a, next(draws), kind)
            return x

        x = correct(x, t) if when == "before" else x
        step = torch.stack([t.t, s.t])
        x = run(sg.solvers.ReverseDiffusion(), model, x, step, noise=Replay([z]))
        x = correct(x, s) if when == "after" else x
    close(run(solver, model, start, walk, noise=Streams(mine, other)), x, 1e-11)


def test_mean_norms_couple_samples_and_norms_of_samples_do_not() -> None:
    model, x = sg.ScoreModel(NET, sg.VPSDE()), normal(4, 2)
    other = torch.cat([x[:1], 5 * x[1:]])
    for norms, coupled in (("sample", False), ("batch", True)):
        solver = sg.PredictorCorrector(corrector=sg.Langevin(norms=norms))  # type: ignore[arg-type]
        a, b = (run(solver, model, start, 5)[0] for start in (x, other))
        assert torch.allclose(a, b, rtol=1e-12) != coupled
