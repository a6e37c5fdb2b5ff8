"""Denoising MCMC: chains whose law over states and levels is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import sdegen as sg
from sdegen.exact import Gaussian, Mixture, exact_model
from sdegen.sampling import Tempered, denoised, denoising_gibbs
from sdegen.walks import Walk
from tests.cases import close, normal, refused

FAR = Mixture([[-4.0, 0.0], [4.0, 0.0], [0.0, 5.0]], [0.3, 0.4, 0.3], [0.2, 0.5, 0.3])
SDE = sg.EDMSDE(T=12.0, t_min=0.1)
WALK = Walk(SDE, sg.walks.log_snr(SDE, 16))


def shares(x: Tensor) -> Tensor:
    """Of the modes of FAR."""
    nearest = torch.cdist(x, torch.tensor(FAR.means, dtype=x.dtype)).argmin(1)
    return torch.bincount(nearest, minlength=3) / len(x)


def test_levels_given_states_are_the_posteriors() -> None:
    """Of states that do not move: shares of levels, with one sweep each, against p_i(y)."""
    law = Gaussian([0.0], [1.0])
    model, walk = exact_model(law, SDE), Walk(SDE, [12.0, 3.0, 1.0, 0.1])
    y = torch.full((6000, 1), 0.7, dtype=torch.float64)
    index = torch.full((6000,), 3)
    found = denoising_gibbs(
        model, y, walk=walk, log_prob=law.log_prob, sweeps=1, step=1e-9, index=index
    )
    rho = torch.tensor([12.0, 3.0, 1.0, 0.1]).double()
    p = (-0.5 * 0.49 / (1 + rho**2)).exp() / (1 + rho**2).sqrt()
    got = torch.bincount(found.index, minlength=4) / 6000
    close(got, p / p.sum(), rtol=0, atol=0.02)
    assert found.nfe == 1


@pytest.mark.parametrize("sde", [SDE, sg.VPSDE(), sg.FlowSDE(T=0.99, t_min=0.01)], ids=str)
def test_states_have_each_levels_law(sde: sg.LinearSDE) -> None:
    """On a Gaussian, whose variance a Langevin step of 0.02 rho^2 moves by 1 % at most."""
    law = Gaussian([0.5], [1.0])
    walk = Walk(sde, sg.walks.log_snr(sde, 4))
    y = normal(3000, 1)
    found = denoising_gibbs(
        exact_model(law, sde), y, walk=walk, log_prob=law.log_prob, sweeps=150, step=0.2
    )
    at = sde(walk.times[found.index])
    z = (found.y[:, 0] - 0.5) / (1 + at.rho**2).sqrt()
    assert abs(float(z.mean())) < 0.08
    assert 0.9 < float(z.var()) < 1.25  # and 1 / (1 - step / 2) = 1.11 at most, in the mean


def test_far_modes_have_their_weights() -> None:
    """All chains begin in one mode, where Langevin alone stays."""
    model = exact_model(FAR, SDE)
    start = torch.tensor([[4.0, 0.0]], dtype=torch.float64).expand(1000, 2)
    begin = torch.full((1000,), WALK.steps)
    how = {"walk": WALK, "log_prob": FAR.log_prob, "index": begin}
    found = denoising_gibbs(model, start, sweeps=150, **how)  # type: ignore[arg-type]
    x, calls = denoised(model, found, WALK, solver=sg.DDIM())
    close(shares(x), torch.tensor([0.2, 0.5, 0.3]), rtol=0, atol=0.06)
    assert 1 <= calls < WALK.steps
    low = Walk(SDE, [0.3, 0.2, 0.1])
    stuck = denoising_gibbs(
        model, start, walk=low, log_prob=FAR.log_prob, sweeps=150, index=begin * 0
    )
    assert shares(stuck.y)[1] == 1


def test_chains_go_on_and_depend_on_themselves_alone() -> None:
    model, y = exact_model(FAR, SDE), normal(4, 2)
    how = {"walk": WALK, "log_prob": FAR.log_prob, "sweeps": 5}
    whole = denoising_gibbs(model, y, seed=3, **how)  # type: ignore[arg-type]
    alone = denoising_gibbs(model, y[:1], seed=3, **how)  # type: ignore[arg-type]
    close(whole.y[:1], alone.y)
    assert int(whole.index[0]) == int(alone.index[0]) and whole.nfe == 5


def test_refusals() -> None:
    model, y = exact_model(FAR, SDE), normal(2, 2)
    with refused("step lies between 0 and 1, but it is 1.5"):
        denoising_gibbs(model, y, walk=WALK, log_prob=FAR.log_prob, sweeps=1, step=1.5)
    with refused("sweeps must be a whole number >= 1, but it is 0"):
        denoising_gibbs(model, y, walk=WALK, log_prob=FAR.log_prob, sweeps=0)
    with refused("levels that fall"):
        up = Walk(SDE, [3.0, 1.0, 2.0, 0.5])
        denoising_gibbs(model, y, walk=up, log_prob=FAR.log_prob, sweeps=1)
    with pytest.raises(TypeError, match="unexpected keyword argument 'steps'"):
        denoised(model, Tempered(y, torch.tensor([0, 1]), 0), WALK, steps=3)
