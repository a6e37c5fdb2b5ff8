"""Couplings, pairs and straightness against their closed forms on Gaussians."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

import sdegen as sg
from sdegen.distill import Pairs, pairs_of, straightness
from sdegen.distill.straight import both
from sdegen.exact.distributions import Gaussian
from sdegen.losses import MinibatchOT, independent_noise, stored
from sdegen.networks import MLP
from sdegen.sde.level import expand
from tests.cases import Ornstein, close, normal, refused

FLOW = sg.FlowSDE(T=1.0, t_min=0.0)
STD = 0.6


def coupled(r: float) -> sg.ScoreModel:
    """The exact flow of x0 ~ N(0, STD^2) and z ~ N(0, 1) of correlation r: E[z - x0 | x_t]."""

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        a, b = 1 - t, t
        var = a**2 * STD**2 + b**2 + 2 * a * b * r * STD
        return expand((b + a * r * STD - a * STD**2 - b * r * STD) / var, x) * x  # type: ignore[no-any-return]

    return sg.ScoreModel(velocity, FLOW, predicts="velocity", flow_only=True)


def correlated(r: float) -> object:
    """Noise that has the correlation r with data of std STD."""

    def couple(
        x0: Tensor, y: Tensor | None = None, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        _, z = independent_noise(x0, y, generator)
        return x0, r * x0 / STD + math.sqrt(1 - r**2) * z

    return couple


@pytest.mark.parametrize("r", [0.0, 0.3, 0.9])
def test_the_least_loss_of_a_coupling(r: float) -> None:
    """INT E Var[z - x0 | x_t] dt = s sqrt(1 - r^2) arccos r per dimension."""
    torch.manual_seed(0)
    x0 = STD * torch.randn(4000, 4, dtype=torch.float64)
    loss = sg.dsm_loss(
        coupled(r),
        x0,
        weighting="straight",
        draw=sg.losses.low_discrepancy,
        couple=correlated(r),  # type: ignore[arg-type]
    )
    least = STD * math.sqrt(1 - r**2) * math.acos(r)
    assert abs(float(loss.mean()) - least) < 4 * float(loss.std()) / math.sqrt(len(x0))


@pytest.mark.parametrize("r", [0.0, 0.3, 0.9])
def test_straightness_of_a_coupling(r: float) -> None:
    """S = 2 s (1 - r) - s sqrt(1 - r^2) arccos r per dimension: s (2 - pi / 2) at r = 0."""
    exact = 2 * STD * (1 - r) - STD * math.sqrt(1 - r**2) * math.acos(r)
    found = straightness(coupled(r), (64,), 1000)
    close(found, exact, rtol=0.02, atol=1e-4)


@pytest.mark.parametrize("sde", [sg.VPSDE(), sg.EDMSDE(), sg.FlowSDE(T=0.999)], ids=str)
def test_straightness_is_of_the_straightened_flow_on_every_sde(sde: sg.LinearSDE) -> None:
    """Of independent noise it is FlowSDE's, but for the ends that an SDE leaves out."""
    model = sg.exact.exact_model(Gaussian([0.0], [[STD**2]]), sde)
    close(straightness(model, (1,), 20_000), STD * (2 - math.pi / 2), rtol=0.05)


def test_no_velocity_changes_on_a_straight_path() -> None:
    """After a reflow of Gaussians z is x0's own: correlation 1, straightness 0."""
    line = sg.ScoreModel(
        lambda x, t: expand((1 - STD) / (t + (1 - t) * STD), x) * x,
        FLOW,
        predicts="velocity",
        flow_only=True,
    )
    assert straightness(line, (3,), 100) < 1e-7


def test_minibatch_ot_permutes_noise_and_shortens_it() -> None:
    """Data stay, noise is that of the same draws in another order, and no farther away."""
    x0 = normal(16, 2)
    kept, z = MinibatchOT()(x0, None, torch.Generator().manual_seed(1))
    _, drawn = independent_noise(x0, None, torch.Generator().manual_seed(1))
    close(kept, x0)
    close(z[z[:, 0].argsort()], drawn[drawn[:, 0].argsort()])
    assert float((z - x0).square().sum()) < float((drawn - x0).square().sum())


def test_minibatch_ot_of_two_in_one_dimension() -> None:
    """Of pairs sorted against each other the correlation is 1 / pi, exactly."""
    draws = torch.Generator().manual_seed(0)
    x0 = torch.randn(2000, 2, 1, generator=draws, dtype=torch.float64)
    z = torch.stack([MinibatchOT()(each, None, draws)[1] for each in x0])
    products = (x0 * z).flatten()
    error = float(products.std()) / math.sqrt(len(products))
    assert abs(float(products.mean()) - 1 / math.pi) < 4 * error


def test_minibatch_ot_stays_within_its_class() -> None:
    """Each class keeps the noise that its samples drew: p(z | y) is p(z)."""
    x0, y = normal(12, 2), torch.tensor([0, 1, 1, 0, 2, 2, 1, 0, 0, 1, 2, 2])
    _, z = MinibatchOT()(x0, y, torch.Generator().manual_seed(1))
    _, drawn = independent_noise(x0, y, torch.Generator().manual_seed(1))
    for label in range(3):
        mine, theirs = z[y == label], drawn[y == label]
        close(mine[mine[:, 0].argsort()], theirs[theirs[:, 0].argsort()])
    _, mixed = MinibatchOT(by_class=False)(x0, y, torch.Generator().manual_seed(1))
    assert bool((mixed != z).any())


def test_minibatch_ot_knows_no_origin_and_no_shared_label() -> None:
    """Data moved as a whole have the same plan; one label for all is one group."""
    x0 = normal(32, 1)
    plans = [
        MinibatchOT()(x.float(), y, torch.Generator().manual_seed(1))[1]
        for x, y in ((x0, None), (x0 + 1e4, None), (x0, torch.tensor(1)))
    ]
    assert all(torch.equal(plans[0], each) for each in plans[1:])


def test_pairs_are_those_of_their_seeds(tmp_path: Path) -> None:
    """Whatever the batches, and after a file: pair i is the flow's end of noise (seed, i)."""
    data = Gaussian([0.0, 0.5], [[0.4, 0.1], [0.1, 0.3]])
    model = sg.exact.exact_model(data, sg.FlowSDE(T=1.0))
    how = {"solver": sg.DDIM(), "steps": 5, "walk": "uniform"}
    made = pairs_of(model, 7, (2,), batch_size=3, seed=4, **how)  # type: ignore[arg-type]
    other = pairs_of(model, 9, (2,), batch_size=9, seed=4, **how)  # type: ignore[arg-type]
    assert torch.equal(made.pairs, other.pairs[:7]) and made.shape == (2,) and len(made) == 7
    z = made.pairs[:, 1]
    close(made.x, sg.solve(model, z, **how).x)  # type: ignore[arg-type]
    made.write(tmp_path / "pairs.safetensors")
    assert torch.equal(Pairs.read(tmp_path / "pairs.safetensors").pairs, made.pairs)


def test_pairs_know_their_labels(tmp_path: Path) -> None:
    model = sg.ScoreModel(MLP(2, width=8, classes=3), sg.FlowSDE(T=1.0), predicts="velocity")
    y = torch.tensor([0, 2, 1, 0])
    made = pairs_of(model, 4, (2,), y=y, classes=3, solver=sg.DDIM(), steps=1, walk="uniform")
    made.write(tmp_path / "a")
    again = Pairs.read(tmp_path / "a")
    assert again.classes == 3 and again[1][1] == 2
    x0, z = stored(torch.stack([again[i][0] for i in range(4)]))
    assert torch.equal(x0, made.x) and torch.equal(z, made.pairs[:, 1])


def test_a_flow_trained_on_its_own_pairs_is_straight() -> None:
    """The loss of the line through the pairs of a Gaussian's flow is 0: there is one x0 to a z."""
    model = sg.exact.exact_model(Gaussian([0.0], [[STD**2]]), sg.FlowSDE(T=1.0))
    made = pairs_of(model, 64, (1,), solver=sg.RK4(), steps=64, walk="uniform")
    gain = float((made.x / made.pairs[:, 1]).mean())
    line = sg.ScoreModel(
        lambda x, t: expand((1 - gain) / (t + (1 - t) * gain), x) * x,
        FLOW,
        predicts="velocity",
        flow_only=True,
    )
    loss = sg.dsm_loss(line, made.pairs, weighting="straight", couple=stored)
    assert float(loss.max()) < 1e-9


@pytest.mark.parametrize(
    "sde", [sg.VPSDE(T=0.4), sg.VESDE(sigma_max=3.0), sg.FlowSDE(T=0.9)], ids=str
)
def test_a_pairs_path_begins_where_its_flow_did(sde: sg.LinearSDE) -> None:
    """Whatever the prior: at T all pairs lie where sampling begins."""
    model = sg.exact.exact_model(Gaussian([0.3, 0.0], [[0.5, 0.1], [0.1, 0.2]]), sde)
    made = pairs_of(model, 6, (2,), seed=3, solver=sg.DDIM(), steps=4)
    top = sde(sde.T)
    like = torch.empty(6, 2, dtype=torch.float32)
    start = sde.prior.sample(sg.Seeded(3).stream("prior")(like, top, top))
    close(sde.mix(made.x, top, made.pairs[:, 1]), start.to(made.x), rtol=1e-5)
    fitted = sg.sde.truncated(sg.VPSDE(), 2 + normal(200, 2), T=0.4)
    model = sg.ScoreModel(MLP(2, width=8, depth=1), fitted)
    made = pairs_of(model, 6, (2,), seed=3, solver=sg.DDIM(), steps=4)
    top = fitted(fitted.T)
    start = fitted.prior.sample(sg.Seeded(3).stream("prior")(like, top, top))
    close(fitted.mix(made.x, top, made.pairs[:, 1]), start.to(made.x), rtol=1e-5)


def reordered(
    x0: torch.Tensor, y: torch.Tensor | None, generator: torch.Generator | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """A coupling that moves the data."""
    return x0.flip(0), torch.randn(x0.shape, generator=generator)


def test_couplings_respect_what_each_sample_is_told() -> None:
    """Noise that goes with what a sample is told is not the noise that sampling begins with."""
    net = MLP(2, width=8, depth=1, classes=3, numbers=["w"])
    model = sg.ScoreModel(net, VP, flow_only=True)
    x0, y = normal(6, 2).float(), torch.tensor([0, 0, 0, 1, 2, 2])
    for told in ({"y": y}, {"y": 1}, {"w": 0.5}, {}):
        loss = sg.dsm_loss(model.given(**told), x0, couple=MinibatchOT())
        assert bool(loss.isfinite().all())
    sg.dsm_loss(model.given({"y": 1}), x0, couple=MinibatchOT(by_class=False))
    sg.dsm_loss(model, x0, couple=reordered)
    with refused("pairs noise with data whatever their y, .* by_class=True"):
        sg.dsm_loss(model.given(y=y), x0, couple=MinibatchOT(by_class=False))
    with refused("whatever their w, of which the model is told: .*Use independent_noise"):
        sg.dsm_loss(model.given(y=y, w=torch.ones(6)), x0, couple=MinibatchOT())
    with refused("returns the data in another order than .*, so that y would be told of other"):
        sg.dsm_loss(model.given(y=y), x0, couple=reordered)
    sg.dsm_loss(model.given(y=y), x0, couple=lambda x0, y, g: (x0 + 0.01 * y[:, None], x0 * 0))
    sg.dsm_loss(model.given(y=y), x0, couple=lambda x0, y, g: (x0.double(), x0.double() * 0))


def flow_only(sde: sg.LinearSDE) -> sg.ScoreModel:
    """A model that says it knows a flow alone."""
    return sg.ScoreModel(lambda x, t: 0 * x, sde, predicts="v", flow_only=True)


VP = sg.VPSDE()


@pytest.mark.parametrize(
    "use",
    [
        lambda m: sg.sample(m, (2, 3), solver=sg.Ancestral(), steps=3),
        lambda m: sg.sample(m, (2, 3), solver=sg.EulerMaruyama(), steps=3),
        lambda m: sg.sample(m, (2, 3), solver=sg.DPMSolverPP(), eta=0.5, steps=3),
        lambda m: sg.sample(m, (2, 3), solver=sg.solvers.ERSDE(), steps=3),
        lambda m: sg.sample(m, (2, 3), solver=sg.EulerMaruyama(), eta=torch.ones_like, steps=3),
        lambda m: sg.sample(m, (2, 3), solver=sg.DDIM(1.0), eta=[1.0, 0.0, 0.0], steps=3),
        lambda m: sg.sampling.resample(m, normal(2, 3), t=0.5, nfe=4),
        lambda m: sg.editing.changed_where(m, m, normal(2, 3), t=0.5),
        lambda m: sg.solvers.analytic_dpm(m, normal(2, 3)),
        lambda m: sg.sample(m, (2, 3), solver=sg.PredictorCorrector(), eta=0.0, steps=3),
        lambda m: sg.sample(
            m,
            (2, 3),
            solver=sg.DDIM(),
            walk=sg.walks.restart(VP, sg.walks.karras(VP, 6), [(0.1, 1.0, 1, 2)]),
        ),
        lambda m: sg.elbo(m, normal(2, 3), draws=2),
        lambda m: sg.likelihood.discrete_elbo(m, normal(2, 3), steps=3),
        lambda m: sg.guidance.Guided(m, lambda x, level: x.sum(1)),
        lambda m: sg.guidance.mmps(m, normal(2, 3), lambda x: x, 0.1),
        lambda m: sg.guidance.Known(m, normal(2, 3), torch.ones(2, 3) > 0),
        lambda m: m(normal(2, 3), 0.5).score,
        lambda m: sg.guidance.Thresholded(m, data_range=(-1, 1))(normal(2, 3), 0.5).score,
    ],
)
def test_a_flow_has_no_score(use: object) -> None:
    """Everything that works with a score refuses a model of a flow alone, wrapped or not."""
    with refused("flow_only=True"):
        use(flow_only(VP))  # type: ignore[operator]


def test_a_flow_is_solved_encoded_and_measured() -> None:
    """Its probability flow has samples, codes and a density."""
    model, x = flow_only(VP), normal(2, 3)
    for solver in (sg.DDIM(), sg.UniPC(), sg.Heun()):
        assert bool(sg.sample(model, (2, 3), solver=solver, steps=4).isfinite().all())
    assert bool(sg.log_prob(model, x, solver=sg.RK4(), steps=8).value.isfinite().all())


@pytest.mark.parametrize(
    ("use", "words"),
    [
        (
            lambda: sg.dsm_loss(
                sg.exact.exact_model(Gaussian([0.0], [[1.0]]), VP),
                normal(4, 1),
                couple=MinibatchOT(),
            ),
            "MinibatchOT couples data and noise, so that eps is no score: make the model",
        ),
        (
            lambda: MinibatchOT()(normal(6, 2), torch.eye(3).repeat(2, 1)),
            r"labels \(6,\), but y is \(6, 3\)",
        ),
        (lambda: stored(torch.zeros(3, 4)), r"Pairs are \(b, 2, \*\)"),
        (lambda: Pairs(torch.zeros(3, 4)), r"Pairs are \(n, 2, \*\)"),
        (
            lambda: pairs_of(flow_only(VP), 4, (2,), solver=sg.Ancestral(), steps=4),
            "eta = 0",
        ),
        (
            lambda: sg.ScoreModel(lambda x, t: x, Ornstein(), predicts="score", flow_only=True),
            "flow_only is of a LinearSDE's flow",
        ),
    ],
)
def test_refusals(use: object, words: str) -> None:
    with refused(words):
        use()  # type: ignore[operator]


def test_both_are_finite_at_either_end() -> None:
    """x0 and eps of a velocity, where there is no signal and where there is no noise."""
    for t in (0.0, 1.0):
        level = FLOW(torch.tensor(t, dtype=torch.float64))
        x0, eps = both(normal(3, 2), level, normal(3, 2, seed=1))
        assert bool(x0.isfinite().all() and eps.isfinite().all())
