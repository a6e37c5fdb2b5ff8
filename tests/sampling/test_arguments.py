"""What users hand over by mistake, or from other libraries: taken, or one sentence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import sdegen as sg
from tests.cases import close, refused

MODEL = sg.ScoreModel(lambda x, t: 0.1 * x, sg.VPSDE())


def run(start: Any = (3, 2), **how: Any) -> torch.Tensor:
    how = {"solver": sg.DDIM(), "seed": 0, **how}
    if "walk" not in how and "nfe" not in how:
        how = {"steps": 3, **how}
    return sg.sample(MODEL, start, **how)


def test_arrays_and_numbers_of_other_libraries_are_taken() -> None:
    usual = run()
    close(run(np.array([3, 2])), usual), close(run(torch.Size([3, 2])), usual)
    close(run(steps=np.int64(3)), usual), close(run(seed=np.int64(0)), usual)
    times = np.linspace(1.0, 0.1, 5)
    close(run(walk=times), run(walk=torch.tensor(times)))
    close(run(seed=np.array([4, 5, 6])), run(seed=[4, 5, 6]))
    close(run(seed=torch.tensor(0)), usual), close(run(denoise=None), usual)
    x = torch.ones(3, 2)
    (
        close(run(x, t=torch.tensor(0.5)), run(x, t=0.5)),
        close(run(x, t=np.float32(0.5)), run(x, t=0.5)),
    )
    betas = np.linspace(1e-3, 0.1, 50)
    for given in (betas, torch.tensor(betas), list(betas)):
        assert sg.DiscreteVPSDE(given) == sg.DiscreteVPSDE(tuple(betas.tolist()))
    level = sg.MarginalSDE(lambda t: (1.0, t), t_min=0.1)(0.5)
    close(torch.stack([level.alpha, level.sigma, level.d_alpha, level.d_var]), [1.0, 0.5, 0, 1.0])
    level = sg.MarginalSDE(lambda t: (torch.tensor(1.0), t), t_min=0.1)(torch.ones(3))
    assert level.alpha.shape == level.lam.shape == (3,)


MISTAKES: dict[str, tuple[Callable[[], Any], str]] = {
    "an int as shape": (lambda: run(16), r"Give a shape \(b, \*\).*not 16"),
    "nothing as shape": (lambda: run(None), r"Give a shape \(b, \*\).*not None"),
    "text as shape": (lambda: run("16"), r"Give a shape \(b, \*\).*not '16'"),
    "an array as states": (lambda: run(np.ones((3, 2))), "torch.as_tensor makes a tensor"),
    "a list as states": (lambda: run([[1.0, 2.0]]), "positive whole numbers"),
    "a generator as seed": (lambda: run(seed=torch.Generator()), "A seed is a whole number"),
    "text as seed": (lambda: run(seed="0"), "A seed is a whole number.*not '0'"),
    "a part of a seed": (lambda: run(seed=[1.5, 2, 3]), "A seed is a whole number.*not 1.5"),
    "times and a budget": (
        lambda: run(solver="recommended", walk=[1.0, 0.5, 0.1], nfe=9),
        "times has its own number of steps: leave out nfe = 9[.]",
    ),
    "times and both": (
        lambda: run(solver=sg.Heun(), walk=[1.0, 0.5, 0.1], steps=2, nfe=9),
        "times has its own number of steps: leave out steps = 2 and nfe = 9[.]",
    ),
    "an exact divergence's probes": (
        lambda: sg.log_prob(MODEL, torch.zeros(3, 2), divergence="exact", probes=3),
        "probes = 3 says nothing of divergence='exact', which has no probes",
    ),
    "an estimated divergence's chunk": (
        lambda: sg.log_prob(MODEL, torch.zeros(3, 2), divergence="rademacher", chunk=3),
        "chunk = 3 is how many rows.*nothing of divergence='rademacher': leave chunk out, or",
    ),
    "a usual divergence's chunk": (
        lambda: sg.log_prob(MODEL, torch.zeros(2, 64), chunk=8),
        "chunk = 8.*nothing of divergence='rademacher', which is the usual one in 64 dimensions",
    ),
    "data's std of another form": (
        lambda: sg.Multistep(prediction="eps", sigma_data=1.0),
        "sigma_data = 1 is of prediction='F'",
    ),
    "the usual std of another form": (
        lambda: sg.Multistep(prediction="eps", sigma_data=0.5),
        "sigma_data = 0.5 is of prediction='F'",
    ),
    "steps in x0 with a std": (
        lambda: sg.solvers.AdaptiveMultistep(prediction="x0", sigma_data=0.5),
        "sigma_data = 0.5 is of prediction='F'",
    ),
    "stages in x0 with a std": (
        lambda: sg.solvers.Singlestep(sigma_data=0.5),
        "sigma_data = 0.5 is of prediction='F'",
    ),
    "text as steps": (lambda: run(steps="3"), "steps must be a whole number >= 1.*'3'"),
    "a float as steps": (lambda: run(steps=3.0), "steps must be a whole number >= 1.*3.0"),
    "too many steps": (lambda: run(steps=10**30), r"steps = 1e\+30 is more than the 10,000,000"),
    "text as nfe": (lambda: run(nfe="3"), "nfe must be a whole number >= 1.*'3'"),
    "half an nfe": (lambda: run(nfe=3.5), "nfe must be a whole number >= 1.*3.5"),
    "text as eta": (lambda: run(solver=sg.Heun(), eta="1"), "eta must be a number >= 0.*'1'"),
    "text as times": (lambda: run(walk=["1", "0.5"]), "A walk's times are numbers"),
    "a number as a watch": (lambda: run(watch=5), "watch is called as watch.*but it is 5"),
    "text as a switch": (lambda: run(denoise="yes"), "denoise must be true or false.*'yes'"),
    "text as T": (lambda: sg.VPSDE(T="1"), "VPSDE's T must be a number.*'1'"),  # type: ignore[arg-type]
    "text as beta": (lambda: sg.VPSDE(beta_min="0.1"), "beta_min must be a number"),  # type: ignore[arg-type]
    "text as sigma": (lambda: sg.VESDE(sigma_max="5"), "sigma_max must be a number"),  # type: ignore[arg-type]
    "text as betas": (lambda: sg.DiscreteVPSDE(["0.1"]), "a beta must be a number"),  # type: ignore[list-item]
    "text in a solver": (lambda: sg.DDIM(eta="0"), "DDIM's eta must be a number"),  # type: ignore[arg-type]
    "text as tolerance": (lambda: sg.AdaptiveRK(rtol="1e-3"), "rtol must be a number"),  # type: ignore[arg-type]
    "one curve": (lambda: sg.MarginalSDE(torch.cos), r"returns the pair \(alpha, sigma\)"),  # type: ignore[arg-type]
    "curves of numpy": (
        lambda: sg.MarginalSDE(lambda t: (np.cos(t), np.sin(t))),
        r"torch.cos rather than numpy's",
    ),
    "an array as data": (lambda: sg.dsm_loss(MODEL, np.ones((3, 2))), "Data is a torch.Tensor"),  # type: ignore[arg-type]
    "a list as data": (lambda: sg.log_prob(MODEL, [[1.0]]), "Data is a torch.Tensor"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told_in_a_sentence(name: str) -> None:
    do, words = MISTAKES[name]
    with refused(words):
        do()


SPARSE, NOISY = torch.ones(3, 2).to_sparse(), {"solver": sg.DPMSolverPP()}
LEVELS = sg.walks.levels(MODEL.sde, [1.0, 0.5])


def march_along(walk: Any) -> Any:
    return list(sg.march(sg.DDIM(), sg.Reverse(MODEL), torch.ones(1, 2), walk))


ODD: dict[str, tuple[Callable[[], Any], str]] = {
    "a shape with true": (lambda: run((True, 2)), r"positive whole numbers, but it is \(True, 2"),
    "sparse states": (lambda: run(SPARSE), "x_T is a dense tensor, but it is torch.sparse_coo"),
    "sparse data": (lambda: sg.encode(MODEL, SPARSE), "Data is a dense tensor"),
    "sparse data to learn": (lambda: sg.dsm_loss(MODEL, SPARSE), "Data is a dense tensor"),
    "an array to resample": (
        lambda: sg.sampling.resample(MODEL, np.ones((3, 2)), t=0.5),  # type: ignore[arg-type]
        "Data is a torch.Tensor .* ndarray",
    ),
    "a list of bytes": (
        lambda: sg.bits_per_dim(MODEL, [[1, 2]]),  # type: ignore[arg-type]
        "Images is a torch.Tensor",
    ),
    "a walk of one argument": (
        lambda: run(steps=1, walk=lambda sde: [1.0, 0.1]),
        r"walk\(sde, n\)",
    ),
    "an eta of no argument": (lambda: run(eta=lambda: 1.0, **NOISY), "called with lam, a tensor"),
    "an eta of words": (lambda: run(eta=lambda lam: "0.5", **NOISY), "called with lam, a tensor"),
    "an eta without a square": (lambda: run(eta=1e308, **NOISY), "up to 1e[+]06"),
    "a march of times": (
        lambda: march_along(torch.tensor([1.0, 0.5])),
        r"walks.levels\(model.sde, times\)",
    ),
    "a march of nothing": (lambda: march_along(None), "it is of NoneType"),
    "a march of no levels": (lambda: march_along([]), "it has none"),
    "a march of levels once": (lambda: march_along(iter(LEVELS)), "it is of list_iterator"),
    "a path to a word": (lambda: sg.Brownian(0, "1"), "T > 0, but T = '1'"),  # type: ignore[arg-type]
}


def test_a_path_may_end_at_a_tensor() -> None:
    x = torch.ones(1, 2)
    one, other = (sg.Brownian(0, T)(x, *LEVELS) for T in (1.0, torch.tensor(1.0)))  # type: ignore[arg-type]
    assert torch.equal(one, other)


@pytest.mark.parametrize("name", ODD)
def test_what_cannot_be_taken_is_told(name: str) -> None:
    call, words = ODD[name]
    with refused(words):
        call()


def test_many_betas_are_said_in_a_line() -> None:
    assert len(repr(sg.DiscreteVPSDE())) < 80
    assert "(0.0001, ..., 0.02), 1000 of them" in repr(sg.DiscreteVPSDE())
    assert repr(sg.DiscreteVPSDE([0.1, 0.2])) == "DiscreteVPSDE(betas=(0.1, 0.2))"
    betas = [*sg.DiscreteVPSDE().betas]  # type: ignore[misc]
    betas[500] += 1e-15
    assert str(sg.DiscreteVPSDE(betas)) != str(sg.DiscreteVPSDE())
