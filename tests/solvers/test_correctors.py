"""Predictor and corrector by hand."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

import sdegen as sg
from sdegen.exact.distributions import Gaussian, Mixture, Problem, exact_model
from tests.cases import Replay, Smooth, close, normal, run

NET = Smooth()


def langevin_by_hand(
    x: Tensor, model: sg.ScoreModel, at: sg.Level, a: float, z: Tensor, kind: str
) -> Tensor:
    """Song et al.'s corrector, as in algs. 4-5 and in their code: norms, or their means; or sigma
    in their ratio's place."""
    score = model(x, at).score
    noise, length = z.flatten(1).norm(dim=1), score.flatten(1).norm(dim=1)
    if kind == "batch":
        noise, length = noise.mean(), length.mean()
    e = torch.as_tensor(2 * a * (0.16 * noise / length) ** 2).reshape(-1, 1, 1)
    if kind == "level":
        e = 2 * a * (0.3 * at.sigma) ** 2
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
@pytest.mark.parametrize("kind", ["sample", "batch", "level"])
@pytest.mark.parametrize("sde", [sg.VPSDE(), sg.VESDE()], ids=["vp", "ve"])
def test_predictor_and_corrector_by_hand(sde: sg.LinearSDE, kind: str, when: str) -> None:
    """Song et al. (2021), alg. 1; a = 1 - beta_i for VP, 1 for VE."""
    solver = sg.PredictorCorrector(corrector=sg.Langevin(norms=kind), n=2, when=when)  # type: ignore[arg-type]
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
    for norms, coupled in (("level", False), ("sample", False), ("batch", True)):
        solver = sg.PredictorCorrector(corrector=sg.Langevin(norms=norms))  # type: ignore[arg-type]
        a, b = (run(solver, model, start, 5)[0] for start in (x, other))
        assert torch.allclose(a, b, rtol=1e-12) != coupled


# ------------------------------------------------------------------------ the law that comes out


def line(d: int, std: float) -> Gaussian:
    """N(0, std^2 I) in d dimensions."""
    return Gaussian([0.0] * d, (std**2 * torch.eye(d)).tolist())


@pytest.mark.parametrize(
    ("sde", "when"),
    [
        (sg.VPSDE(), "after"),
        (sg.EDMSDE(), "after"),
        pytest.param(sg.VPSDE(), "before", marks=pytest.mark.slow),
        pytest.param(sg.VESDE(), "after", marks=pytest.mark.slow),
        pytest.param(sg.SubVPSDE(), "after", marks=pytest.mark.slow),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_predictor_and_corrector_give_the_std_in_every_dimension(
    sde: sg.LinearSDE, when: str
) -> None:
    """Data of std 0.3: each sample's own norms gave 90.6 in one dimension."""
    pc = sg.PredictorCorrector(when=when)  # type: ignore[arg-type]
    margin = 0.03 + 2 / (2 * 8192) ** 0.5  # two standard errors of a measured std
    for d in (1, 2, 3, 8, 64):
        n = 8192 // d
        model = exact_model(line(d, 0.3), sde)
        x = sg.sample(model, (n, d), solver=pc, steps=100, seed=d)
        assert abs(float(x.std()) / 0.3 - 1) < margin, d
        assert float(x.mean().abs()) < 0.01
        alone = sg.sample(model, (1, d), solver=pc, steps=100, seed=d)
        close(alone, x[:1], rtol=1e-5, atol=1e-6)


TWO = Mixture(means=[[-1.0], [1.0]], stds=[0.36, 0.36], weights=[0.3, 0.7])


@pytest.mark.parametrize(
    ("sde", "problem", "mean", "std"),
    [
        (sg.VPSDE(), line(1, 0.36), 0.0, 0.36),
        (sg.VPSDE(), TWO, 0.4, (0.36**2 + 0.84) ** 0.5),
        pytest.param(
            sg.EDMSDE(), TWO, 0.4, (0.36**2 + 0.84) ** 0.5, marks=pytest.mark.slow, id="edm_two"
        ),
    ],
    ids=["vp", "vp_two", "edm_two"],
)
def test_langevin_alone_anneals_to_the_data(
    sde: sg.LinearSDE, problem: Problem, mean: float, std: float
) -> None:
    """Song & Ermon (2019), alg. 1: mean and std of one mode and of two; on VP and EDM, and so, by
    x / alpha, on every SDE."""
    x = sg.sample(
        exact_model(problem, sde), (4096, 1), solver="annealed_langevin", steps=100, seed=0
    )
    # Of 4,096 samples the mean is known to 0.015, and the bias is 1 to 2 %.
    assert abs(float(x.mean()) - mean) < 0.05 and abs(float(x.std()) / std - 1) < 0.05


def test_annealed_langevin_by_hand() -> None:
    """n steps of length 2 (snr sigma)^2 at every level after the first, in x / alpha."""
    sde = sg.SubVPSDE()
    model, walk, draws = sg.ScoreModel(NET, sde, "v"), sg.walks.log_snr(sde, 3), normal(6, 4, 2)
    x = start = normal(4, 2, seed=1)
    for i, (t, s) in enumerate(pairwise(sde(walk).unbind())):
        y, rho = x / t.alpha, s.rho
        for z in draws[2 * i : 2 * i + 2]:
            e = 2 * (0.4 * rho) ** 2
            y = y + e * s.alpha * model(s.alpha * y, s).score + (2 * e) ** 0.5 * z
        x = s.alpha * y
    solver = sg.solvers.AnnealedLangevin(0.4, n=2)
    close(run(solver, model, start, walk, noise=Replay(list(draws))), x, 1e-11)
    assert solver.calls(3) == 6


def test_a_level_can_be_corrected_alone() -> None:
    """``stay``: exact where it starts, and a law that is off comes back."""
    sde, level = sg.VPSDE(), sg.VPSDE()(0.4)
    p = sg.Reverse(exact_model(line(2, 0.36), sde), 1.0, sg.Seeded(0))
    x = torch.zeros(8192, 2, dtype=torch.float64)
    for _ in range(100):
        x = sg.Langevin().stay(p, x, level)
    exact = float((level.alpha * 0.36).square() + level.sigma**2) ** 0.5
    assert abs(float(x.std()) / exact - 1) < 0.05
