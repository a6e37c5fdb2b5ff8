"""Score models: whatever a network predicts, it says the same; and it is told the right time."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sdegen as sg
from tests.cases import EVERY, close, every_sde, normal, refused

# ------------------------------------------------------------- the targets, in the papers' words


def slopes_of(level: sg.Level) -> tuple[Tensor, Tensor]:
    """d alpha / dt and d sigma / dt out of f and g^2 alone."""
    return level.f * level.alpha, level.f * level.sigma + level.g2 / (2 * level.sigma)


def karras_F(level: sg.Level, x0: Tensor, z: Tensor, sd: float = 0.5) -> Tensor:
    """Karras et al. (2022), eq. 7: D = c_skip y + c_out F at y = x / alpha, sigma = rho."""
    s = level.sigma / level.alpha
    c_skip, c_out = sd**2 / (s**2 + sd**2), s * sd / (s**2 + sd**2) ** 0.5
    return (x0 - c_skip * (x0 + s * z)) / c_out


TARGETS: dict[str, Callable[[sg.Level, Tensor, Tensor], Tensor]] = {
    "eps": lambda level, x0, z: z,
    "x0": lambda level, x0, z: x0,
    "score": lambda level, x0, z: -z / level.sigma,
    "v": lambda level, x0, z: level.alpha * z - level.sigma * x0,
    "velocity": lambda level, x0, z: slopes_of(level)[0] * x0 + slopes_of(level)[1] * z,
    "edm": karras_F,
}

predictions = pytest.mark.parametrize("predicts", TARGETS)


@every_sde
@predictions
def test_every_prediction_says_the_same(sde: sg.LinearSDE, predicts: str) -> None:
    x0, z = normal(6, 2), normal(6, 2, seed=1)
    for part in (0.02, 0.3, 0.7, 0.99):
        level = sde(torch.tensor(part * sde.T, dtype=torch.float64))
        x = level.alpha * x0 + level.sigma * z
        F = TARGETS[predicts](level, x0, z)
        said = sg.ScoreModel(lambda x, t: F, sde, predicts)(x, level.t)  # noqa: B023
        # x0 out of eps is divided by alpha and so on: rounding grows by up to 1 / alpha.
        slack = 1e-12 * (1 + float(1 / level.alpha) + float(1 / level.sigma)) ** 2
        close(said.x0, x0, slack, slack)
        close(said.eps, z, slack, slack)
        close(said.score, -z / level.sigma, slack, slack / float(level.sigma))
        close(said.v, level.alpha * z - level.sigma * x0, slack, slack * float(level.sigma + 1))
        for eta in (0, 0.5, 1.0, torch.tensor(2.0, dtype=torch.float64)):
            drift = level.f * x + (1 + eta**2) / 2 * level.g2 * z / level.sigma
            size = float(drift.abs().max())
            close(said.drift(eta), drift, slack, slack * size)
        close(said.velocity, said.drift(0), 0, slack * size)


@every_sde
@predictions
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_trained_for_view_is_the_output_to_the_last_bit(
    sde: sg.LinearSDE, predicts: str, dtype: torch.dtype
) -> None:
    x, F = 50 * normal(4, 3, dtype=dtype), normal(4, 3, seed=1, dtype=dtype)
    model = sg.ScoreModel(lambda x, t: F, sde, predicts)
    for t in torch.linspace(sde.t_min, sde.T, 23, dtype=torch.float64):
        for when in (t, t.expand(4)):
            said = model(x, when)
            view = said.view(said.a, said.b) if predicts == "edm" else getattr(said, predicts)
            assert torch.equal(view, F)
            assert view.dtype == dtype


@every_sde
def test_times_of_a_batch_are_times_one_by_one(sde: sg.LinearSDE) -> None:
    t = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64) * sde.T
    x, F = normal(3, 2, 2), normal(3, 2, 2, seed=1)
    for predicts in TARGETS:
        together = sg.ScoreModel(lambda x, t: F, sde, predicts)(x, t)
        for i in range(3):
            model = sg.ScoreModel(lambda x, t: F[i : i + 1], sde, predicts)  # noqa: B023
            alone = model(x[i : i + 1], t[i])
            for view in ("x0", "eps", "score", "v", "velocity"):
                close(getattr(together, view)[i : i + 1], getattr(alone, view))
            close(together.drift(1.0)[i : i + 1], alone.drift(1.0))


def test_a_prediction_of_your_own() -> None:
    """output = a x0 + b eps with any a and b: here, x0 + eps."""
    x0, z, sde = normal(5, 2), normal(5, 2, seed=1), sg.EDMSDE()
    model = sg.ScoreModel(lambda x, t: x0 + z, sde, lambda level: (1.0, 1.0))
    said = model(x0 + 3.0 * z, 3.0)
    close(said.x0, x0, 1e-11, 1e-13)
    close(said.eps, z, 1e-11, 1e-13)


# -------------------------------------------------------------------------- what a network sees


class Spy(nn.Module):
    """Keeps what it was called with, and returns its input."""

    def __init__(self, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.seen: list[tuple[Tensor, Tensor, dict[str, Any]]] = []
        self.weight = None if dtype is None else nn.Parameter(torch.ones((), dtype=dtype))

    def forward(self, x: Tensor, label: Tensor, **conditions: Any) -> Tensor:
        self.seen.append((x, label, conditions))
        return x


def labels(sde: sg.SDE, t: Tensor | float, **options: Any) -> Tensor:
    spy = Spy()
    sg.ScoreModel(spy, sde, **options)(normal(2, 1), t)
    return spy.seen[0][1]


def test_time_labels_by_hand() -> None:
    t = torch.tensor([0.25, 0.5], dtype=torch.float64)
    vp = sg.VPSDE()
    alpha = torch.exp(-0.25 * t**2 * 19.9 - 0.05 * t)
    sigma = torch.sqrt(1 - alpha**2)
    close(labels(vp, t), t)
    close(labels(vp, t, time="t"), t)
    close(labels(vp, t, time="999t"), [249.75, 499.5])
    close(labels(vp, t, time="lam"), torch.log(alpha / sigma))
    close(labels(vp, t, time="sigma"), sigma)
    close(labels(vp, t, time="c_noise"), torch.log(sigma / alpha) / 4)
    close(labels(vp, t, predicts="edm"), torch.log(sigma / alpha) / 4)
    close(labels(vp, t, predicts="edm", time="t"), t)
    close(labels(vp, t, time=lambda level: level.t**2), t**2)
    close(labels(sg.VESDE(), t, time="sigma"), 0.01 * 5000**t)
    close(labels(sg.EDMSDE(), 2.0, predicts="edm"), [math.log(2.0) / 4] * 2)
    ddpm = sg.DiscreteVPSDE()
    steps = torch.tensor([1, 1000], dtype=torch.float64) / 1000
    close(labels(ddpm, steps, time="1000t-1"), [0.0, 999.0], 0, 1e-12)
    few = sg.DiscreteVPSDE(torch.linspace(1e-3, 0.2, 100).tolist())
    close(labels(few, torch.tensor([0.01, 1.0]), time="1000t-1"), [0.0, 99.0], 0, 1e-5)
    close(labels(sg.VPSDE(T=2.0), torch.tensor([1.0, 2.0]), time="999t"), [499.5, 999.0])
    close(labels(sg.VPSDE(T=2.0), torch.tensor([1.0, 2.0]), time="1000t-1"), [499.0, 999.0])
    close(labels(sg.CosineSDE(), torch.tensor([0.5, 0.9]), time="999t"), [499.5, 899.1], 1e-6)


def test_edm_preconditioning_is_table_1() -> None:
    """Karras et al. (2022): D(x) = c_skip x + c_out F(c_in x; c_noise)."""
    x, sd = 5 * normal(4, 2), 0.7
    for sde, t in ((sg.EDMSDE(), [0.002, 0.3, 2.0, 80.0]), (sg.VESDE(), [0.0, 0.2, 0.9, 1.0])):
        when = torch.tensor(t, dtype=torch.float64)
        s = sde(when).sigma
        spy = Spy()
        said = sg.ScoreModel(spy, sde, "edm", sigma_data=sd)(x, when)
        inputs, label, _ = spy.seen[0]
        col = s[:, None]
        c_skip, c_out = sd**2 / (col**2 + sd**2), col * sd / (col**2 + sd**2).sqrt()
        c_in = 1 / (col**2 + sd**2).sqrt()
        close(inputs, c_in * x)
        close(label, s.log() / 4, 1e-12, 1e-15)
        close(said.x0, c_skip * x + c_out * (c_in * x), 1e-10)


def test_scaled_inputs_have_unit_variance() -> None:
    x, t, sde = normal(3, 2), torch.tensor([0.1, 0.5, 0.9]).double(), sg.VPSDE()
    spy = Spy()
    sg.ScoreModel(spy, sde, "eps", scale_input=True, sigma_data=0.7)(x, t)
    sg.ScoreModel(spy, sde, "eps")(x, t)
    level = sde(t)
    close(spy.seen[0][0], x / (level.alpha**2 * 0.49 + level.sigma**2).sqrt()[:, None])
    assert torch.equal(spy.seen[1][0], x)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_networks_precision_is_its_own(dtype: torch.dtype) -> None:
    """The state keeps its dtype; the label is never less than float32."""
    spy, sde = Spy(dtype), sg.VPSDE()
    for state in (torch.float32, torch.float64):
        x = normal(2, 3, dtype=state)
        for t in (0.3, torch.tensor([0.3, 0.6])):
            said = sg.ScoreModel(spy, sde, "eps", time="999t", scale_input=True)(x, t)
            seen, label, _ = spy.seen[-1]
            assert seen.dtype == dtype
            assert label.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
            assert label.shape == (2,)
            for view in (said.eps, said.x0, said.score, said.v, said.velocity, said.drift(1.0)):
                assert view.dtype == state
            assert torch.equal(said.eps, seen.to(state))


def test_a_network_without_parameters_is_called_in_the_states_precision() -> None:
    for dtype in (torch.float32, torch.float64):
        spy = Spy()
        model = sg.ScoreModel(spy, sg.VPSDE())
        model(normal(2, 3, dtype=dtype), 0.5)
        assert spy.seen[0][0].dtype == spy.seen[0][1].dtype == dtype
        assert model.dtype is None and model.device == torch.device("cpu")
    assert sg.ScoreModel(Spy(torch.bfloat16), sg.VPSDE()).dtype == torch.bfloat16


def test_a_sample_in_bfloat16_is_a_float32_state() -> None:
    net = Spy(torch.bfloat16)
    out = sg.solve(sg.ScoreModel(net, sg.VPSDE()), (4, 2), solver=sg.Heun(), steps=3, seed=0)
    assert out.x.dtype == torch.float32
    assert {seen.dtype for seen, _, _ in net.seen} == {torch.bfloat16}


# ------------------------------------------------------------------------ counting, conditions


def test_every_call_is_counted_once_and_views_are_free() -> None:
    spy = Spy()
    model = sg.ScoreModel(spy, sg.VPSDE())
    said = model(normal(3, 2), 0.5)
    _ = said.x0, said.eps, said.score, said.v, said.velocity, said.drift(1.0)
    assert model.nfe == len(spy.seen) == 1
    guided = model.given(y=1)
    guided(normal(3, 2), 0.5)
    model.given(y=2).given(w=3)(normal(3, 2), 0.5)
    assert model.nfe == guided.nfe == len(spy.seen) == 3
    assert sg.ScoreModel(spy, sg.VPSDE()).nfe == 0


def test_conditions_reach_the_network_as_keywords() -> None:
    spy, y = Spy(), torch.tensor([1, 2])
    model = sg.ScoreModel(spy, sg.VPSDE())
    both = model.given(y=y).given(w=2.0)
    for each in (both, both.given(y=None), model):
        each(normal(2, 1), 0.5)
    assert [seen[2] for seen in spy.seen] == [{"y": y, "w": 2.0}, {"y": None, "w": 2.0}, {}]
    assert both.net is model.net


def test_a_model_is_a_module_whose_weights_are_its_networks() -> None:
    model = sg.ScoreModel(nn.Linear(2, 2), sg.VPSDE())
    assert set(model.state_dict()) == {"net.weight", "net.bias"}
    assert model.given(y=0).double().dtype == torch.float64 == model.dtype


# ------------------------------------------------------------------------------------ refusals


class OnlyDrift(sg.SDE):
    """An SDE that is not linear: nothing but drift and diffusion."""

    T, t_min = 1.0, 0.0

    def drift(self, x: Tensor, t: Tensor) -> Tensor:
        return -(x**3)

    def diffusion(self, x: Tensor, t: Tensor) -> Tensor:
        return torch.tensor(0.5)

    @property
    def prior(self) -> sg.Prior:
        return sg.Prior()


def test_an_sde_without_marginals_knows_the_score_alone() -> None:
    F, x = normal(3, 2), normal(3, 2, seed=1)
    said = sg.ScoreModel(lambda x, t: F, OnlyDrift(), "score")(x, 0.5)
    assert torch.equal(said.score, F)
    close(said.drift(0.5), -(x**3) - (1 + 0.5**2) / 2 * 0.25 * F)
    for options in (
        {},
        {"predicts": "x0"},
        {"predicts": "edm"},
        {"predicts": lambda level: (1.0, 0.0)},
        {"predicts": "score", "scale_input": True},
    ):
        with refused("has no marginals.*use predicts='score'"):
            sg.ScoreModel(Spy(), OnlyDrift(), **options)  # type: ignore[arg-type]
    for label in ("sigma", "lam", "c_noise"):
        with refused(f"time label '{label}' cannot be made.*marginals of a LinearSDE"):
            sg.ScoreModel(Spy(), OnlyDrift(), "score", time=label)
    close(labels(OnlyDrift(), 0.5, predicts="score", time="999t"), [499.5, 499.5])


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    with refused("Unknown prediction 'noise'.*edm, eps, score, v, velocity, x0"):
        sg.ScoreModel(Spy(), sg.VPSDE(), "noise")
    with refused("Unknown time label 'steps'.*1000t-1, 999t, c_noise, lam, sigma, t"):
        sg.ScoreModel(Spy(), sg.VPSDE(), time="steps")
    with refused("second argument is an SDE"):
        sg.ScoreModel(Spy(), "vp")  # type: ignore[arg-type]
    for sigma_data in (0.0, -1.0, math.nan):
        with refused("sigma_data must be (positive|a number), but it is"):
            sg.ScoreModel(Spy(), sg.VPSDE(), "edm", sigma_data=sigma_data)


def test_states_and_times_that_cannot_be_are_refused_uncalled() -> None:
    spy = Spy()
    model = sg.ScoreModel(spy, sg.VPSDE())
    with refused(r"floating-point tensor \(b, \*\).*torch.int64"):
        model(torch.zeros(2, 2, dtype=torch.int64), 0.5)
    with refused(r"floating-point tensor \(b, \*\)"):
        model(torch.tensor(1.0), 0.5)
    for t in (torch.tensor([0.5]), torch.zeros(2, 1) + 0.5, torch.zeros(3) + 0.5):
        with refused(r"Times are of shape \(\) or \(2,\) for a batch of 2"):
            model(normal(2, 2), t)
    assert not spy.seen and model.nfe == 0


def test_a_network_must_return_its_inputs_shape() -> None:
    for wrong in (lambda x, t: x[:, :1], lambda x, t: x.sum(), lambda x, t: x[None]):
        with refused(r"must return its input's shape \(2, 3\), but it returned"):
            sg.ScoreModel(wrong, sg.VPSDE())(normal(2, 3), 0.5)


def test_every_named_prediction_is_tested_here() -> None:
    assert set(TARGETS) == {*sg.model.prediction.PREDICTIONS, "edm"}
    assert len(EVERY) == 8
