"""Denoising MCMC: chains whose law over states and levels is known."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import sdegen as sg
from sdegen.exact import Gaussian, Mixture, exact_model
from sdegen.noise.source import Noise
from sdegen.sampling import Tempered, denoised, denoising_gibbs
from sdegen.sde.level import Instant, Level
from sdegen.walks import Walk
from tests.cases import close, normal, refused, refused_with

FAR = Mixture([[-4.0, 0.0], [4.0, 0.0], [0.0, 5.0]], [0.3, 0.4, 0.3], [0.2, 0.5, 0.3])
SDE = sg.EDMSDE(T=12.0, t_min=0.1)
WALK = Walk(SDE, sg.walks.log_snr(SDE, 16))


def on(times: list[float]) -> Walk:
    """A walk at these times."""
    return Walk(SDE, torch.tensor(times, dtype=torch.float64))


def shares(x: Tensor) -> Tensor:
    """Of the modes of FAR."""
    nearest = torch.cdist(x, torch.tensor(FAR.means, dtype=x.dtype)).argmin(1)
    return torch.bincount(nearest, minlength=3) / len(x)


class Impulse(Noise):
    """One in a row of the batch alone, the row of its sweep; no noise for levels."""

    def __init__(self, row: int | None = None) -> None:
        self.row = row

    def __call__(self, x: Tensor, t: Instant, s: Instant) -> Tensor:
        z = torch.zeros_like(x)
        if self.row is not None:
            z[self.row] = 1
        return z

    def stream(self, name: str) -> Impulse:
        what, k = name.split()
        return Impulse(int(k) if what == "langevin" else None)


@pytest.mark.parametrize("var", [0.0, 1.0])
@pytest.mark.parametrize("step", [0.1, 0.5])
def test_the_variance_of_a_chain_at_one_level_is_known(var: float, step: float) -> None:
    """Exactly: chains are linear in their noise, and each has that of one sweep alone."""
    walk, n = on([12.0, 2.0, 0.1]), 400

    def second(x: Tensor, level: Level) -> Tensor:
        return torch.full((len(x),), 0.0 if float(level.sigma) == 2 else -99.0)

    start = Tempered(torch.zeros(n, 1).double(), torch.ones(n, dtype=torch.int64))
    model = exact_model(Gaussian([0.0], [var]), SDE)
    found = denoising_gibbs(
        model, start, walk=walk, log_prob=second, sweeps=n, step=step, noise=Impulse()
    )
    noise = 4 / (var + 4)
    close(found.y.square().sum(), (var + 4) * 2 / (2 - step * noise))
    if var == 0:  # by step / (2 - step) of the noise's variance, 4
        close(found.y.square().sum(), 4 * (1 + step / (2 - step)))
    assert bool((found.index == 1).all())


def test_levels_given_states_are_the_posteriors() -> None:
    """Of states that do not move: shares of levels, with one sweep each, against p_i(y)."""
    law = Gaussian([0.0], [1.0])
    model, walk = exact_model(law, SDE), on([12.0, 3.0, 1.0, 0.1])
    y = torch.full((6000, 1), 0.7, dtype=torch.float64)
    start = Tempered(y, torch.full((6000,), 3))
    found = denoising_gibbs(model, start, walk=walk, log_prob=law.log_prob, sweeps=1, step=1e-9)
    rho = torch.tensor([12.0, 3.0, 1.0, 0.1]).double()
    p = (-0.5 * 0.49 / (1 + rho**2)).exp() / (1 + rho**2).sqrt()
    got = torch.bincount(found.index, minlength=4) / 6000
    close(got, p / p.sum(), rtol=0, atol=0.02)
    assert found.nfe == 1


@pytest.mark.parametrize(
    "sde",
    [
        sg.VPSDE(),
        *(pytest.param(s, marks=pytest.mark.slow) for s in (SDE, sg.FlowSDE(T=0.99, t_min=0.01))),
    ],
    ids=str,
)
def test_states_have_each_levels_law(sde: sg.LinearSDE) -> None:
    """On a Gaussian, far from the start: within step / (2 - step) and four standard errors."""
    law, n, step = Gaussian([0.5], [1.0]), 10_000, 0.05
    walk = Walk(sde, sg.walks.log_snr(sde, 4))
    how = {"walk": walk, "log_prob": law.log_prob, "step": step}
    found = denoising_gibbs(exact_model(law, sde), 3 * normal(n, 1), sweeps=150, **how)  # type: ignore[arg-type]
    at = sde(walk.times[found.index])
    z = (found.y[:, 0] - 0.5) / (1 + at.rho**2).sqrt()
    assert abs(float(z.mean())) < 4 / n**0.5
    error = 4 * (2 / n) ** 0.5
    assert 1 - error < float(z.var()) < 1 + step / (2 - step) + error


def test_far_modes_have_their_weights() -> None:
    """All chains begin in one mode, where Langevin alone stays."""
    model = exact_model(FAR, SDE)
    start = torch.tensor([[4.0, 0.0]], dtype=torch.float64).expand(1000, 2)
    begin = torch.full((1000,), WALK.steps)
    found = denoising_gibbs(
        model, Tempered(start, begin), walk=WALK, log_prob=FAR.log_prob, sweeps=150
    )
    x, calls = denoised(model, found, WALK, solver=sg.DDIM())
    close(shares(x), torch.tensor([0.2, 0.5, 0.3]), rtol=0, atol=0.06)
    assert 1 <= calls < WALK.steps
    low = on([0.3, 0.2, 0.1])
    stuck = denoising_gibbs(model, start, walk=low, log_prob=FAR.log_prob, sweeps=150)
    assert shares(stuck.y)[1] == 1


GIBBS = {"walk": WALK, "log_prob": FAR.log_prob}


def test_chains_depend_on_themselves_alone() -> None:
    model, y = exact_model(FAR, SDE), normal(4, 2)
    whole = denoising_gibbs(model, y, seed=3, sweeps=5, **GIBBS)  # type: ignore[arg-type]
    alone = denoising_gibbs(model, y[:1], seed=3, sweeps=5, **GIBBS)  # type: ignore[arg-type]
    close(whole.y[:1], alone.y)
    assert int(whole.index[0]) == int(alone.index[0]) and whole.nfe == whole.sweeps == 5


@pytest.mark.parametrize("random", [{}, {"seed": 3}, {"seed": [5, 5, 2, 1]}], ids=str)
def test_chains_go_on(random: dict[str, Any]) -> None:
    """5 and 5 sweeps, and one by one, are 10 to the bit; also of one source."""
    model, y = exact_model(FAR, SDE), normal(4, 2)
    ten = denoising_gibbs(model, y, sweeps=10, **GIBBS, **random)  # type: ignore[arg-type]
    for parts in ([5, 5], [1] * 10):
        source = sg.Seeded(random.get("seed", 0))
        for how in (random, {"noise": source}):
            chains: Tensor | Tempered = y
            for k in parts:
                chains = denoising_gibbs(model, chains, sweeps=k, **GIBBS, **how)  # type: ignore[arg-type]
            assert isinstance(chains, Tempered)
            assert torch.equal(chains.y, ten.y) and torch.equal(chains.index, ten.index)
            assert chains.nfe == chains.sweeps == 10


def test_a_path_gives_every_run_the_same_chains() -> None:
    model, y, path = exact_model(FAR, SDE), normal(4, 2), sg.Brownian(0, SDE.T)
    runs = [denoising_gibbs(model, y, sweeps=2, noise=path, **GIBBS).y for _ in range(2)]  # type: ignore[arg-type]
    assert torch.equal(*runs)


@pytest.mark.parametrize("index", [[0, 0], [16, 0], [16, 16]], ids=str)
def test_samples_have_gradients_where_a_graph_is_asked_for_alone(index: list[int]) -> None:
    """Whatever levels their chains are at."""
    net = torch.nn.Linear(2, 2, dtype=torch.float64)
    model = sg.ScoreModel(lambda x, t: net(x), SDE, "x0", module=net)
    chains = Tempered(normal(2, 2), torch.tensor(index))
    for mode in (torch.enable_grad, torch.no_grad):
        with mode():
            plain, _ = denoised(model, chains, WALK, seed=0)
            kept, _ = denoised(model, chains, WALK, seed=0, graph=True)
        assert not plain.requires_grad
        (slope,) = torch.autograd.grad(kept.sum(), net.bias)
        close(plain, kept.detach())
        assert bool((slope != 0).all())


SOLVERS = {
    "ddim": {"solver": sg.DDIM(eta=1.0)},
    "2m": {"solver": sg.DPMSolverPP(2), "eta": 1.0},
    "recommended": {"eta": 1.0},
    "corrected": {"solver": sg.PredictorCorrector(sg.DDIM(eta=1.0), sg.Langevin(0.1))},
}


@pytest.mark.parametrize("how", SOLVERS.values(), ids=SOLVERS)
@pytest.mark.parametrize("seed", [7, [4, 9, 4, 0, 2]], ids=str)
def test_a_chain_has_its_own_noise_whoever_is_at_its_level(
    how: dict[str, Any], seed: int | list[int]
) -> None:
    """Chain i alone at its level is chain i among others that are there or elsewhere."""
    walk, y = Walk(SDE, sg.walks.log_snr(SDE, 5)), normal(5, 2)
    model, places = exact_model(FAR, SDE), torch.tensor([1, 0, 1, 5, 4])
    x, _ = denoised(model, Tempered(y, places), walk, seed=seed, **how)
    for i in range(5):
        index = torch.full((5,), 5)
        index[i] = places[i]
        alone, _ = denoised(model, Tempered(y, index), walk, seed=seed, **how)
        close(alone[i], x[i])
    together = torch.ones_like(places)
    same, _ = denoised(model, Tempered(y, together), walk, seed=seed, **how)
    close(x[[0, 2]], same[[0, 2]])
    whole = sg.sample(
        model, y * walk[1].alpha, walk=walk.times[1:], t=float(walk.times[1]), seed=seed, **how
    )
    close(same, whole)


@pytest.mark.parametrize("seed", [pytest.param(7, marks=pytest.mark.slow), [4, 9, 4]], ids=str)
def test_a_chain_has_its_own_path(seed: int | list[int]) -> None:
    """Of a solver that needs one; on a longer walk the length of a first step is the batch's."""
    walk, y, model = on([3.0, 0.1]), normal(3, 2), exact_model(FAR, SDE)
    how = {"solver": sg.solvers.GottaGoFast(), "seed": seed}
    x = sg.sample(model, y, walk=walk, **how)  # type: ignore[arg-type]
    for index in ([0, 0, 0], [0, 1, 0], [1, 1, 0], [1, 0, 1]):
        part, _ = denoised(model, Tempered(y, torch.tensor(index)), walk, **how)
        gone = torch.tensor(index) == 0
        close(part[gone], x[gone])


def test_chains_at_two_levels_share_no_noise() -> None:
    n, law = 4000, Gaussian([0.0], [1.0])
    index = torch.arange(2).repeat_interleave(n)
    chains = Tempered(torch.zeros(2 * n, 1).double(), index)
    x, _ = denoised(exact_model(law, SDE), chains, WALK, solver=sg.DDIM(eta=1.0), seed=0)
    correlation = torch.corrcoef(x.reshape(2, n))[0, 1]
    assert abs(float(correlation)) < 4 / n**0.5


def test_conditions_go_with_their_chains() -> None:
    """A network that is told where its data lie, one place for each chain."""
    seen = []

    def net(x: Tensor, t: Tensor, place: Tensor) -> Tensor:
        seen.append(len(place))
        return place[:, None].expand(x.shape)

    places = torch.tensor([3.0, -1.0, 2.0])
    model = sg.ScoreModel(net, SDE, predicts="x0").given(place=places)
    chains = Tempered(normal(3, 2), torch.tensor([0, 15, 0]))
    x, _ = denoised(model, chains, WALK, solver=sg.DDIM(), denoise=True)
    close(x, places[:, None].expand(3, 2).double())
    assert set(seen) == {1, 2}


def test_refusals() -> None:
    model, y = exact_model(FAR, SDE), normal(2, 2)
    with refused("step lies between 0 and 1, but it is 1.5"):
        denoising_gibbs(model, y, sweeps=1, step=1.5, **GIBBS)  # type: ignore[arg-type]
    with refused("sweeps must be a whole number >= 1, but it is 0"):
        denoising_gibbs(model, y, sweeps=0, **GIBBS)  # type: ignore[arg-type]
    with refused("Give a seed or a noise source, not both"):
        denoising_gibbs(model, y, sweeps=1, seed=0, noise=sg.Seeded(0), **GIBBS)  # type: ignore[arg-type]
    up = on([3.0, 1.0, 2.0, 0.5])
    with refused("levels that fall"):
        denoising_gibbs(model, y, walk=up, log_prob=FAR.log_prob, sweeps=1)
    with refused("levels that fall"):
        denoised(model, Tempered(y, torch.tensor([0, 1])), up)
    with pytest.raises(TypeError, match="unexpected keyword argument 'steps'"):
        denoised(model, Tempered(y, torch.tensor([0, 1])), WALK, steps=3)
    chains = Tempered(y, torch.tensor([0, 1]))
    with refused("3 seeds were given for 2 chains"):
        denoised(model, chains, WALK, solver=sg.DDIM(), seed=[1, 2, 3])
    with refused("Seeded draws for a whole batch at once"):
        denoised(model, chains, WALK, solver=sg.DDIM(eta=1.0), noise=sg.Seeded(0))
    assert model.nfe == 0


@pytest.mark.parametrize(
    "start",
    [
        [0.0, 1.0],
        torch.tensor(1.0),
        torch.zeros(0, 2),
        torch.zeros(2, 2, dtype=torch.int64),
        torch.tensor([[0.0, 1.0], [math.nan, 0.0]]),
        torch.tensor([[0.0, 1.0], [math.inf, 0.0]]),
        *(
            Tempered(torch.zeros(2, 2), torch.as_tensor(index))
            for index in ([-1, 0], [0, 99], [0, 17], [0], [[0, 1]], [0.0, 1.0], [True, False])
        ),
        Tempered(torch.zeros(2, 2), [0, 1]),  # type: ignore[arg-type]
    ],
    ids=repr,
)
def test_what_are_no_chains(start: Any) -> None:
    model = exact_model(FAR, SDE)
    with refused("index has the number|Chains have floating-point|States must be finite"):
        denoising_gibbs(model, start, sweeps=1, **GIBBS)  # type: ignore[arg-type]
    if isinstance(start, Tempered):
        with refused_with("of each chain's level, (2,) whole numbers from 0 to 16"):
            denoised(model, start, WALK, solver=sg.DDIM())
    assert model.nfe == 0


@pytest.mark.parametrize(
    "log_prob, said",
    [
        (lambda x, level: FAR.log_prob(x, level) * math.nan, "but of chain 0 it is [nan"),
        (lambda x, level: FAR.log_prob(x, level) + math.inf, "but of chain 0 it is [inf"),
        (lambda x, level: torch.full((3,), -math.inf), "but of chain 0 it is [-inf"),
        (lambda x, level: FAR.log_prob(x, level)[:, None], "(3,), but it gave (3, 1)"),
        (lambda x, level: FAR.log_prob(x, level).sum(), "(3,), but it gave ()"),
        (lambda x, level: 0.0, "(3,), but it gave 0.0"),
    ],
)
def test_log_prob_is_a_number_for_each_chain(log_prob: Any, said: str) -> None:
    model = exact_model(FAR, SDE)
    with refused_with(said):
        denoising_gibbs(model, normal(3, 2), walk=WALK, log_prob=log_prob, sweeps=9)
    assert model.nfe == 1


def test_a_level_may_be_impossible() -> None:
    """-inf says so: no chain goes there."""

    def log_prob(x: Tensor, level: Level) -> Tensor:
        return FAR.log_prob(x, level) - (math.inf if float(level.rho) > 1 else 0)

    found = denoising_gibbs(
        exact_model(FAR, SDE), normal(500, 2), walk=WALK, log_prob=log_prob, sweeps=1
    )
    assert all(float(WALK[i].rho) <= 1 for i in found.index.tolist())
