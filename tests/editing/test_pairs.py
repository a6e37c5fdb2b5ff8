"""Pairs: two plain samples side by side, and edits that leave what they should."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

import sdegen as sg
from sdegen.editing import Alike, Paired, changed_where, translate
from sdegen.guidance import CFG
from sdegen.programs.remembered import programmed
from tests.cases import FIXED, SDES, close, normal, refused
from tests.elsewhere import elsewhere
from tests.labelled import NULL, SDE, X, Y, labelled

PAIR = torch.stack([X, X], 1)
OTHER = Y.flip(0)
MASK = torch.tensor([[True, False], [True, True], [False, False], [False, True]])


def paired(mask: Tensor | None = MASK, predicts: str = "x0", edit: str = "x0") -> Paired:
    """From Y to its opposite, the second half guided."""
    edited = CFG(labelled(SDE, edit).given(y=OTHER), 2.0, {"y": NULL})
    return Paired(labelled(SDE, predicts).given(y=Y), edited, mask=mask)


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("solver", [sg.UniPC(3), sg.Heun(), sg.DDIM(), sg.DPMSolverPP(2)], ids=str)
def test_halves_are_plain_samples(solver: sg.Solver, eta: float) -> None:
    """Without a mask both halves are what each model draws from the same seed."""
    if eta and not solver.traits.any_eta:
        eta = solver.eta
    one, two = labelled(SDE).given(y=Y), labelled(SDE, "v").given(y=OTHER)
    how: dict[str, Any] = {"solver": solver, "steps": 6, "eta": eta}
    pairs = sg.sample(Paired(one, two), PAIR, noise=Alike(sg.Seeded(3)), **how)
    close(pairs[:, 0], sg.sample(one, X, seed=3, **how), rtol=1e-12, atol=1e-12)
    close(pairs[:, 1], sg.sample(two, X, seed=3, **how), rtol=1e-9, atol=1e-9)
    drawn = sg.sample(Paired(one, one), (4, 2, 2), noise=Alike(sg.Seeded(3)), **how)
    assert torch.equal(drawn[:, 1], sg.sample(one, (4, 2), seed=3, **how))


@pytest.mark.parametrize("solver", [sg.UniPC(3), sg.DPMSolverPP(2)], ids=str)
def test_the_identity_edit_is_none(solver: sg.Solver) -> None:
    model = labelled(SDE).given(y=Y)
    x = sg.sample(
        Paired(model, model), (4, 2, 2), noise=Alike(sg.Seeded(0)), solver=solver, eta=0.7, steps=8
    )
    assert torch.equal(x[:, 0], x[:, 1])


@pytest.mark.parametrize("name", FIXED)
def test_outside_the_mask_nothing_changes_for_any_solver(name: str) -> None:
    solver = FIXED[name]
    noise = Alike(sg.Brownian(0) if solver.traits.needs_path else sg.Seeded(0))
    x = sg.sample(paired(), PAIR, solver=solver, noise=noise, steps=4)
    plain = sg.sample(paired(None), PAIR, solver=solver, noise=noise, steps=4)
    same = x[:, 0] == x[:, 1]
    assert bool(same[~MASK].all()) and not bool(same[MASK].any())
    assert not torch.equal(x, plain)


@pytest.mark.parametrize("solver", [sg.UniPC(3), sg.Heun(), sg.DDIM(1.0)], ids=str)
def test_the_program_is_the_plain_loop(solver: sg.Solver) -> None:
    model, eta, times = paired(), solver.eta, sg.walks.log_snr(SDE, 5)
    noise = Alike(sg.Seeded(0))
    equation = sg.Reverse(model, eta, noise)
    for state in sg.march(solver, equation, PAIR, sg.walks.levels(SDE, times)):  # noqa: B007
        pass
    program = programmed(solver, model, eta, times)
    assert program is not None
    *_, end = (x.clone() for x in program.steps(model, PAIR, Alike(sg.Seeded(0))))
    close(end, state.x, rtol=1e-11, atol=1e-12)


def test_a_pair_is_its_own() -> None:
    model, how = paired(), {"solver": sg.DPMSolverPP(2), "steps": 5, "eta": 0.5}

    def drawn(m: Any, x: Tensor, seeds: list[int]) -> Tensor:
        return sg.sample(m, x, noise=Alike(sg.Seeded(seeds)), **how)  # type: ignore[arg-type]

    whole = drawn(model, PAIR, [1, 2, 3, 4])
    for i in range(4):
        one = torch.tensor([i])
        close(drawn(model.take(one), PAIR[one], [i + 1]), whole[one], rtol=1e-11, atol=1e-12)
    sick = PAIR.clone()
    sick[2] = torch.nan
    kept = torch.tensor([0, 1, 3])
    assert torch.equal(drawn(model, sick, [1, 2, 3, 4])[kept], whole[kept])
    with torch.inference_mode():
        assert torch.equal(drawn(model, PAIR, [1, 2, 3, 4]), whole)
    there = elsewhere(lambda move: drawn(model, move(PAIR), [1, 2, 3, 4]))
    close(there, whole, rtol=1e-11, atol=1e-12)
    assert drawn(model, PAIR[:, :1].expand(4, 2, 2), [1, 2, 3, 4]).shape == (4, 2, 2)


def test_an_adaptive_solver_cuts_it() -> None:
    model, solver = paired(), sg.AdaptiveRK("bosh3", rtol=1e-2, atol=1e-2)
    whole = sg.sample(model, PAIR, solver=solver)
    for i in range(4):
        one = torch.tensor([i])
        close(sg.sample(model.take(one), PAIR[one], solver=solver), whole[one], atol=1e-10)


def test_it_costs_both_models_and_given_tells_what_was_told_alike() -> None:
    plain = labelled(SDE)
    done = sg.solve(paired(), (4, 2, 2), nfe=30, seed=0)
    assert done.nfe.tolist() == [30] * 4 and done.walk.steps == 10
    alike = Paired(plain.given(y=Y), plain.given(y=Y)).given(y=OTHER)
    assert torch.equal(alike.edited.conditions["y"], OTHER)  # type: ignore[attr-defined]
    model = Paired(plain.given(y=Y), plain.given(y=OTHER))
    apart = model.given(y=torch.zeros_like(Y))
    assert torch.equal(apart.edited.conditions["y"], OTHER)  # type: ignore[attr-defined]
    assert torch.equal(apart.conditions["y"], torch.zeros_like(Y))
    assert torch.equal(model.conditions["y"], Y)


@pytest.mark.parametrize("name", ["vp", "edm", "flow"])
def test_translated_as_the_flows_of_two_gaussians(name: str) -> None:
    """N(m, v) is taken to N(M, V) by x -> M + sqrt(V/v) (x - m), where sigma_T is large; with a
    mask only there, and what came back is x."""
    sde, (m, v, M, V) = SDES[name], (0.5, 0.09, -1.0, 0.36)
    one, two = (
        sg.exact.exact_model(sg.exact.Gaussian([a, a], [b, b]), sde) for a, b in ((m, v), (M, V))
    )
    x = m + v**0.5 * normal(6, 2)
    mask = torch.tensor([[True, False]])
    how: dict[str, Any] = {"solver": sg.UniPC(3), "steps": 120}
    kept, changed = translate(one, two, x, **how)
    close(kept, x, atol=1e-4, rtol=0)
    T, e = sde(sde.T), sde(sde.t_min)
    sT = [float((T.alpha**2 * c + T.sigma**2) ** 0.5) for c in (v, V)]
    se = [float((e.alpha**2 * c + e.sigma**2) ** 0.5) for c in (v, V)]
    # Both ways the flow is affine: y = alpha_T m + sT/se (alpha_e x - alpha_e m), and back.
    y = T.alpha * m + sT[0] / se[0] * e.alpha * (x - m)
    want = M + se[1] / sT[1] * (y - T.alpha * M) / e.alpha
    close(changed, want, atol=2e-4, rtol=0)
    kept, changed = translate(one, two, x, mask=mask, **how)
    assert torch.equal(kept[:, 1], changed[:, 1])
    close(changed[:, 0], want[:, 0], atol=2e-4, rtol=0)


def test_part_of_the_way_changes_less() -> None:
    one, two = (sg.exact.exact_model(sg.exact.Gaussian([a], [0.09]), SDE) for a in (0.5, -1.0))
    x = torch.full((3, 1), 0.5).double()
    moved = []
    for start in (0.2, 0.5, 1.0):
        walk = partial(sg.walks.log_snr, start=start)
        kept, changed = translate(one, two, x, walk=walk, steps=60)
        close(kept, x, atol=1e-5, rtol=0)
        moved.append(float((x - changed).mean()))
    assert 0 < moved[0] < moved[1] < moved[2] and abs(moved[2] - 1.5) < 0.01


def test_the_mask_is_where_models_differ() -> None:
    """Two models that differ in the second coordinate alone; samples alone as in a batch."""
    one, two = (
        sg.exact.exact_model(sg.exact.Gaussian([0.0, a], [0.1, 0.1]), SDE) for a in (0.0, 1.0)
    )
    x = 0.3 * normal(5, 2)
    mask = changed_where(one, two, x, rho=1.0)
    assert torch.equal(mask, torch.tensor([[False, True]]).expand(5, 2))
    assert not changed_where(one, one, x, t=0.5).any()
    images = sg.ScoreModel(lambda x, t: x.tanh(), SDE, "x0")
    lifted = sg.ScoreModel(lambda x, t: x.tanh() + (x > 0), SDE, "x0")
    x = normal(3, 2, 4, 4)
    found = changed_where(images, lifted, x, t=0.5, draws=3)
    assert found.shape == (3, 1, 4, 4) and found.any()
    assert torch.equal(changed_where(images, lifted, x[:1], t=0.5, draws=3), found[:1])
    edited = Paired(images, lifted, mask=found)
    assert edited.output(torch.stack([x, x], 1), SDE(0.5)).shape == (3, 2, 2, 4, 4)


def test_what_is_no_pair_is_refused() -> None:
    model = labelled(SDE).given(y=Y)
    with refused(r"A pair of states is \(b, 2, \*\), but the state is \(4, 3\)"):
        sg.sample(Paired(model, model), (4, 3), steps=2)
    with refused("Paired is of two models on VPSDE"):
        Paired(model, labelled(SDES["edm"]).given(y=Y))
    with refused("Paired is of two models on VPSDE.*, not 3"):
        Paired(model, 3)  # type: ignore[arg-type]
    with refused("A mask is boolean, true where an edit may be, but is torch.float32"):
        Paired(model, model, mask=torch.ones(4, 2))
    with refused(r"A mask has the shape \(4, 3\), but states are \(4, 2\)"):
        Paired(model, model, mask=torch.ones(4, 3, dtype=torch.bool)).output(PAIR, SDE(0.5))
    with refused("Give one of t and rho, but t = None and rho = None"):
        changed_where(model, model, X)
    with refused("Paired is of two models on VPSDE"):
        changed_where(model, labelled(SDES["ve"]).given(y=Y), X, t=0.5)
    with pytest.raises(ValueError, match="floating"):
        changed_where(model, model, torch.zeros(4, 2, dtype=torch.int64), t=0.5)
    with refused(r"threshold lies in \[0, 1\), but it is 1.0"):
        changed_where(model, model, X, t=0.5, threshold=1.0)


def test_a_path_ends_for_a_pair_where_it_does() -> None:
    short = Alike(sg.Brownian(0, SDE.T / 2))
    with refused("This Brownian path runs on .* but the walk comes by t = "):
        sg.sample(paired(), PAIR, noise=short, solver=sg.DDIM(eta=1.0), steps=2)
