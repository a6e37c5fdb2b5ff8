"""What would be silent, not finite or a traceback inside torch is refused, with what to do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import sdegen as sg
from sdegen.editing import Paired
from sdegen.guidance import (
    CFG,
    Average,
    Blur,
    Contrast,
    Fourier,
    Gray,
    Guided,
    Interval,
    Judge,
    Known,
    Mask,
    PublishedDPS,
    Radon,
    Stepwise,
    Thresholded,
    cfgpp,
    ddnm,
    jfps,
    mmps,
    pigdm,
)
from sdegen.networks import MLP
from sdegen.sampling import resample
from tests.cases import Plain, close, normal, refused
from tests.elsewhere import THERE, elsewhere
from tests.labelled import NULL, SDE, labelled, log_class

Y = torch.tensor([2, 0, 1])
X = normal(3, 2)
NAN = float("nan")


def model() -> sg.ScoreModel:
    return labelled(SDE).given(y=Y)


@pytest.mark.parametrize("value", [None, "a", NAN, float("inf"), [1.0]])
def test_a_scales_function_gives_numbers(value: Any) -> None:
    cfg = CFG(model(), lambda level: value, {"y": NULL})
    guided = Guided(model(), log_class, lambda level: value, given={"y": Y})
    for each in (cfg, guided):
        before = each.nfe
        with refused("A scale's function gives a number or numbers .b,. at every level, but at t"):
            sg.sample(each, X, solver=sg.DDIM(), steps=2)
        assert each.nfe == before


def test_a_scales_function_is_called_with_a_level() -> None:
    with refused("A scale's function is called with a level, as s.level., but .* too many posi"):
        CFG(model(), lambda: 2.0, {"y": NULL})  # type: ignore[misc, arg-type]
    want = CFG(model(), 2.0, {"y": NULL}).output(X, SDE(0.4))
    for s in (np.float32(2), lambda level: np.float32(2)):
        assert torch.equal(CFG(model(), s, {"y": NULL}).output(X, SDE(0.4)), want)


def test_a_scale_that_is_not_finite_where_a_time_is() -> None:
    """Where the time itself is not, its sample alone is spoilt."""
    for bad in (lambda level: torch.tensor(NAN), lambda level: torch.tensor([1.0, NAN, 1.0])):
        with refused("A scale's function gives a number or numbers .b,. at every level, but at t"):
            CFG(model(), bad, {"y": NULL}).output(X, SDE(0.4))
    level = replace(SDE(torch.full((3,), 0.4)), t=torch.tensor([0.4, NAN, 0.4]))
    got = CFG(model(), lambda level: 1 + level.t, {"y": NULL}).output(X, level)
    assert got.isfinite().all(1).tolist() == [True, False, True]


def test_an_intervals_ends_are_numbers() -> None:
    for high in (None, "a", NAN):
        with refused("An interval's high must be a number, but it is"):
            Interval(2.0, 0.0, high)  # type: ignore[arg-type]
    assert Interval(2.0, 0.0, float("inf"))(SDE(0.4)) == 2.0


def test_a_priors_covariance_is_a_tensor() -> None:
    with refused(r"P is a tensor, as torch.tensor\(\[1.0, 0.5\]\), but it is \[1.0, 1.0\]"):
        jfps(model(), X, lambda x: x, 0.1, [1.0, 1.0])  # type: ignore[arg-type]


def test_what_is_known_is_looked_at_where_the_model_is(monkeypatch: pytest.MonkeyPatch) -> None:
    mask = torch.tensor([True, False])
    plain = sg.ScoreModel(lambda x, t: 0.5 * x, SDE, "x0")
    want = Known(plain, X, mask).output(X, SDE(0.4))
    monkeypatch.setattr(sg.ScoreModel, "device", THERE)
    for made in (
        lambda move: Known(plain, move(X), mask).output(move(X), SDE(0.4)),
        lambda move: Known(plain, X, move(mask)).output(move(X), SDE(0.4)),
    ):
        close(elsewhere(made), want)


def test_scales_that_are_no_numbers() -> None:
    for bad in (NAN, "a", None, torch.ones(3)):
        with refused("An interval's scale must be a number, but it is"):
            Interval(bad, 0.1, 1.0)  # type: ignore[arg-type]
    with refused("An interval's low must be a number"):
        Interval(2.0, NAN, 1.0)
    with refused("A step's scale must be a number, but it is nan"):
        Stepwise((1.0, 0.5), (NAN,))
    with refused("Stepwise takes n . 1 falling times and n scales, not 1 times and 0 scales"):
        Stepwise((1.0,), ())
    for bad in ("a", True, NAN, -0.1):
        with refused("rescale must be a number >= 0"):
            CFG(model(), 2.0, {"y": NULL}, rescale=bad)  # type: ignore[arg-type]
    with refused("CFG needs without="):
        CFG(model(), 2.0, ["y"])  # type: ignore[arg-type]


def test_an_interval_where_there_is_no_rho() -> None:
    bare = sg.ScoreModel(lambda x, t, y: -x, Plain(), "score").given(y=torch.zeros(3))
    with refused("An interval is of sigma / alpha, which this SDE does not know"):
        CFG(bare, Interval(2.0, 0.1, 1.0), {"y": 1.0}).output(X, Plain()(0.5))
    with refused("CFG.. needs alpha and sigma, but Plain gives only drift and diffusion"):
        cfgpp(Plain(), torch.tensor([1.0, 0.5]), 0.5)


def test_cfgpp_takes_times_as_they_come_and_the_references_clock() -> None:
    times = sg.walks.log_snr(SDE, 3)
    assert cfgpp(SDE, times.tolist(), 0.6) == cfgpp(SDE, times, 0.6)  # type: ignore[arg-type]
    own = sg.sde.AnisotropicVPSDE([1.0, 2.0], SDE)
    assert cfgpp(own, times, 0.6) == cfgpp(SDE, times, 0.6)


def test_half_a_pair_is_not_left_unguided() -> None:
    """A CFG of a pair would tell its first half alone what stands in the class's place."""
    one, two = model(), model().given(y=Y.flip(0))
    for pair in (Paired(one, two), Thresholded(Paired(one, two), None, (-2, 2))):
        with refused("second half of a pair was told another y, which this CFG would leave ung"):
            CFG(pair, 2.0, {"y": NULL})
    alike = CFG(Paired(one, one), 2.0, {"y": NULL})
    apart = Paired(CFG(one, 2.0, {"y": NULL}), CFG(one, 2.0, {"y": NULL}))
    x = normal(3, 2, 2)
    assert torch.equal(alike.output(x, SDE(0.4)), apart.output(x, SDE(0.4)))


def test_contrast_takes_lists() -> None:
    for models, scales in ((model(), [1.0]), ([model(), model()], 2.0), ("ab", [1.0])):
        with refused(r"Contrast takes lists, \[weak, strong\] and \[scale\], but one is"):
            Contrast(models, scales)  # type: ignore[arg-type]


def test_a_log_p_takes_what_it_is_given() -> None:
    with refused("log_p is a function .x, level, ..given. -> .b,., but it is 3"):
        Guided(model(), 3)  # type: ignore[arg-type]
    with refused("given is log_p's arguments by name, as .'y': y., but it is .1."):
        Guided(model(), log_class, given=[1])  # type: ignore[arg-type]
    with refused("was given nothing, but: missing a required argument: 'y'"):
        Guided(model(), log_class)
    with refused("was given y, z, but: got an unexpected keyword argument 'z'"):
        Guided(model(), log_class, given={"y": Y, "z": Y})


def test_a_judge_of_other_labels() -> None:
    def net(x: Tensor, t: Tensor) -> Tensor:
        return torch.stack([x.sum(1), x[:, 0], t], 1)

    class Net(torch.nn.Linear):
        def forward(self, x: Tensor, t: Tensor) -> Tensor:  # type: ignore[override]
            return net(x.to(self.weight), t) + self.bias

    judge, free = Judge(Net(2, 3), SDE), model()
    for bad, said in (
        (1, "1"),
        (Y[:2], r"torch.int64 of shape \(2,\)"),
        (X[:, 0], "torch.float64"),
    ):
        with refused(rf"A judge is asked about labels y, int64 of shape \(3,\), not {said}"):
            judge(X, SDE(0.4), bad)
    for bad in (3, -1):
        guided = Guided(free, judge, given={"y": torch.tensor([0, bad, 1])})
        with refused(f"The judge knows 3 classes, from 0, but a label is {bad}"):
            sg.sample(guided, X, solver=sg.DDIM(), steps=2)


def test_what_is_known_or_measured_is_finite() -> None:
    y = torch.tensor([[1.0, NAN]])
    with refused("What is known is finite, but y has NaN or infinity where mask is"):
        Known(model(), y, torch.tensor([False, True]))
    kept = Known(model(), y, torch.tensor([True, False]))  # any number where it is not known
    assert sg.sample(kept, X, solver=sg.DDIM(), steps=2).isfinite().all()
    for make in (mmps, pigdm):
        with refused("What was measured is finite, but y has NaN or infinity"):
            make(model(), y, lambda x: x, 0.1)


BLIND: dict[str, Callable[[Tensor], Any]] = {
    "constant": torch.zeros_like,
    "detached": lambda x: x.detach(),
    "without gradients": torch.no_grad()(lambda x: 2 * x),
    "whole": lambda x: x.long(),
    "no tensor": lambda x: 1.0,
    "a shift": lambda x: x.detach() + torch.zeros(2).requires_grad_(),
    "rounded": lambda x: (x * 127.5).round() / 127.5,
    "a sign": lambda x: x.sign(),
    "flat": lambda x: x.clamp(0, 0),
}


@pytest.mark.parametrize("name", BLIND)
def test_a_measurement_that_nothing_follows_from(name: str) -> None:
    """Its products with the Jacobian would be zero: the samples would know nothing of y."""
    A, y, walk = BLIND[name], torch.zeros(3, 2), torch.tensor([0.9, 0.4, 0.1])
    state = torch.get_rng_state()
    for make in (mmps, pigdm):
        seen = make(model(), y, A, 0.1)
        before = seen.nfe
        with refused("A is a differentiable function of x0, but no gradient comes through it"):
            sg.sample(seen, X, solver=sg.DDIM(), steps=2)
        assert seen.nfe == before
    with refused("A is a differentiable function of x0, but no gradient comes through it"):
        PublishedDPS(model(), y, A, walk).output(X, SDE(0.9))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("through", [False, True])
def test_a_judge_that_detaches_the_state(through: bool) -> None:
    weight = torch.ones(2).double().requires_grad_()
    guided = Guided(model(), lambda x, level: (weight * x.detach()).sum(1), through=through)
    with refused("log_p has no gradient by the state: is it constant, of x.detach.., or under"):
        guided.output(X, SDE(0.4))
    flat = Guided(model(), lambda x, level: x.clamp(0, 0).sum(1), through=through)
    close(flat.output(X, SDE(0.4)), model().output(X, SDE(0.4)))  # a judge may be


@pytest.mark.parametrize("A", [lambda x: x.roll(1, 1) - x, lambda x: x.softmax(1)])
def test_a_measurement_whose_sum_is_always_the_same(A: Any) -> None:
    assert pigdm(model(), torch.zeros(3, 2), A, 0.5).output(X, SDE(0.4)).isfinite().all()


def test_operators_of_other_states() -> None:
    for bad in (3, X):
        with refused("A is an Operator or a function of x0, as lambda x: x @ matrix.T, but it"):
            mmps(model(), X, bad, 0.1)  # type: ignore[arg-type]
    with refused("A mask is boolean, true where it is seen, but it is torch.float32"):
        Mask(torch.full((1, 2), 0.5))
    for A in (Average(2), Blur(torch.ones(1, 1)), Fourier(torch.ones(4, 2) > 0), Radon((0,))):
        with refused(r"is of images \(b, \*, h, w\), but states are \(4, 2\)"):
            A(normal(4, 2))  # whose samples it would mix
    with refused(r"Gray\(3\) has other channels than \(4,\)"):
        Gray(3)(normal(4))
    with refused(r"A kernel is of finite numbers \(p, q\), but it is \(3,\)"):
        Blur(torch.ones(3))
    with refused(r"Fourier's mask is \(4, 4\), but states are \(1, 1, 4, 2\)"):
        Fourier(torch.ones(4, 4) > 0)(normal(1, 1, 4, 2))
    for angles in ((), "ab", 3):
        with refused("Radon takes angles in degrees, one at least, not"):
            Radon(angles)  # type: ignore[arg-type]


def test_thresholds_and_renoising() -> None:
    for bad in ("ab", (0, 1, 2), (1, 1), 3):
        with refused(r"data_range is \(low, high\), but it is"):
            Thresholded(model(), None, bad)  # type: ignore[arg-type]
    with refused("high must be a number, but it is None"):
        Thresholded(model(), None, (-1, None))  # type: ignore[arg-type]
    with refused("most must be a number, but it is 'a'"):
        Thresholded(model(), 0.9, (-1, 1), most="a")  # type: ignore[arg-type]
    with refused("quantile must be a number, but it is 'a'"):
        Thresholded(model(), "a", (-1, 1))  # type: ignore[arg-type]
    for shape in ((3, 2), torch.tensor(1.0), X.long()):
        with refused("Data is (floating point, .b, .., but x is|a torch.Tensor)"):
            resample(model(), shape, rho=0.5)  # type: ignore[arg-type]


def test_states_of_one_number_have_a_full_covariance() -> None:
    """P (1, 1) of states (b,) is their variance."""
    plain = sg.ScoreModel(lambda x, t: 0.5 * x, SDE, "x0")
    y, x, level = normal(3), normal(3, seed=1), SDE(0.4)
    full, own = (
        jfps(plain, y, lambda x: 2 * x, 0.5, P) for P in (torch.ones(1, 1), torch.tensor(1.0))
    )
    close(full.output(x, level), own.output(x, level))


def test_all_of_it_under_inference_mode() -> None:
    """What a model is told there is copied for the graph: the bits of no_grad."""

    def found() -> list[Tensor]:
        y = torch.tensor([2, 0, 1])
        cfg = CFG(labelled(SDE).given(y=y), torch.tensor([2.5, -1.0, 0.3]).double(), {"y": NULL})
        made = (
            Guided(cfg, lambda x0, level: -(x0**2).sum(1), 0.3, through=True),
            mmps(cfg, X[:, :1].clone(), lambda x: x[:, :1], 0.3),
            ddnm(cfg, X.clone(), Mask(torch.tensor([[True, False]]))),
        )
        return [sg.sample(m, X.clone(), solver=sg.DDIM(), steps=3) for m in made]

    with torch.no_grad():
        outside = found()
    with torch.inference_mode():
        inside = found()
    assert all(map(torch.equal, inside, outside))


def test_conditions_of_more_samples_than_there_are() -> None:
    """Of the models inside too, by solvers that take sample after sample."""
    net = MLP(2, width=8, depth=1, classes=3)
    model = sg.ScoreModel(net, sg.VPSDE()).given(y=torch.arange(3))
    quick: list[dict[str, Any]] = [
        {"solver": sg.Heun(), "steps": 2},
        {"solver": sg.solvers.SciPy(rtol=0.1, atol=0.1)},
    ]
    for made in (model, CFG(model, 2.0, {"y": 2})):
        for how in quick:
            with refused("The condition y has 3 values, but the batch has 2 samples"):
                sg.sample(made, (2, 2), **how)
            assert sg.sample(made, (3, 2), **how).isfinite().all()
