"""The benchmark's parts: problems, references, peers, errors, and what is made of points."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SDES, close, normal, refused, sdes
from torch import Tensor

import sdegen as sg
from sdegen.bench import problems
from sdegen.bench.errors import pathwise
from sdegen.bench.peers import PEERS, SUPPORTED, KDiffusion, Peer, need
from sdegen.bench.point import VERSION, Settings, library_of, measure, run
from sdegen.bench.reference import dop853, reference
from sdegen.bench.results import Cell, Choice, load, write_csv
from sdegen.exact.distributions import Empirical, LowRankMixture
from sdegen.metrics.kernels import energy_distance, mmd
from sdegen.report.standings import best, cells_of, fixed
from sdegen.runs.build import build
from sdegen.sde.level import expand
from sdegen.solvers.registry import node

FLOW = {n: p for n, p in PEERS.items() if p.eta == 0 and not p.adaptive}

# --------------------------------------------------------------------------------------- problems


def low_rank() -> tuple[LowRankMixture, torch.distributions.Distribution]:
    """Two components in five dimensions, and the same with their covariances written out."""
    axes = torch.linalg.qr(normal(2, 5, 2)).Q
    var, weights = torch.tensor([[0.8, 0.1], [0.3, 0.5]]), torch.tensor([0.3, 0.7])
    means = normal(2, 5, seed=1)
    var, weights = var.double(), weights.double()
    cov = axes @ torch.diag_embed(var) @ axes.mT + 0.2**2 * torch.eye(5, dtype=torch.float64)
    whole = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(weights),
        torch.distributions.MultivariateNormal(means, cov),
    )
    return LowRankMixture(means, axes, var, weights, 0.2), whole


def test_a_low_rank_mixture_is_one_of_full_covariances() -> None:
    data, whole = low_rank()
    x = data.sample(4000, torch.Generator().manual_seed(0))
    close(data.log_prob(x), whole.log_prob(x), rtol=1e-10)
    for moment in (1, 2):
        far = (x**moment).mean(0) - (whole.sample((40000,)) ** moment).mean(0)
        assert far.abs().max() < 0.1


EXACT = {
    "gaussian": lambda: problems.gaussian(5),
    "mixture": problems.mixture,
    "stiff": problems.stiff,
    "low_rank": lambda: problems.Problem(low_rank()[0], (5,)),
    "empirical": lambda: problems.Problem(Empirical(normal(50, 3, 2), chunk=7), (3, 2)),
}


@sdes
@pytest.mark.parametrize("name", EXACT)
def test_denoisers_are_tweedies_at_a_level_for_each_sample(sde: sg.LinearSDE, name: str) -> None:
    """E[x0 | x] = (x + sigma^2 grad log p(x)) / alpha, and a sample alone has the same density."""
    problem = EXACT[name]()
    exact: Any = problem.exact
    times = sde.T * torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    level = sde(times)
    alpha, sigma = (expand(c, normal(3, *problem.shape)) for c in (level.alpha, level.sigma))
    x = (2 * sigma * normal(3, *problem.shape, seed=2)).requires_grad_()
    density = exact.log_prob(x, level)
    (score,) = torch.autograd.grad(density.sum(), x)
    found = exact.denoise(x.detach(), level)
    close(found, ((x + sigma**2 * score) / alpha).detach(), rtol=1e-6, atol=1e-7)
    each = [exact.log_prob(x[i : i + 1], sde(t)) for i, t in enumerate(times)]
    close(torch.cat(each), density, rtol=1e-10)


def test_constants_are_kept_for_each_dtype() -> None:
    class Nothing(sg.exact.Constant):
        """Without any."""

    with pytest.raises(TypeError, match="constants"):
        Nothing()  # type: ignore[abstract]
    data = problems.mixture().exact
    assert isinstance(data, sg.exact.Mixture)
    first = data.like(normal(1, 2, dtype=torch.float32))
    assert data.like(normal(4, 2, dtype=torch.float32)) is first
    assert {part.dtype for part in first} == {torch.float32}
    assert data.like(normal(1, 2))[0].dtype == torch.float64


def test_problems_are_told_apart_and_are_always_the_same() -> None:
    made = [problems.gaussian, problems.mixture, problems.stiff, problems.digits]
    prints = [make().fingerprint() for make in made]
    assert len(set(prints)) == 4 and prints == [make().fingerprint() for make in made]
    assert problems.gaussian(condition=10.0).fingerprint() != prints[0]


def test_starts_have_the_variance_of_their_level() -> None:
    problem, sde = problems.gaussian(d=3, condition=4.0), sg.VPSDE()
    level = sde(torch.tensor(0.3, dtype=torch.float64))
    x = problem.noised(level, 40000, 0)
    var = torch.linalg.eigvalsh(torch.cov(x.T))
    exact = level.alpha**2 * torch.tensor([0.25, 0.5, 1.0]) + level.sigma**2
    close(var, exact, rtol=0.05)


# ------------------------------------------------------------------------------------- references


def test_references_agree_are_kept_and_are_refused(tmp_path: Path) -> None:
    problem, sde = problems.gaussian(), sg.EDMSDE()
    first = reference(problem, sde, 4, 0, tmp_path)
    assert first.agreement < 1e-9
    top, bottom = (sde(torch.tensor(t, dtype=torch.float64)) for t in (sde.T, sde.t_min))
    exact: Any = problem.exact
    close(first.ends, exact.flow(first.starts, top, bottom), rtol=0, atol=1e-9)
    kept = list(tmp_path.iterdir())
    again = reference(problem, sde, 4, 0, tmp_path)
    assert list(tmp_path.iterdir()) == kept and again.ends.equal(first.ends)
    reference(problem, sde, 4, 1, tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    with refused("disagree by"):
        reference(problem, sde, 4, 2, tmp_path, limit=1e-20)


@sdes
def test_scipys_reference_is_the_gaussians_flow(sde: sg.LinearSDE) -> None:
    problem = problems.gaussian(d=4)
    top, bottom = (sde(torch.tensor(t, dtype=torch.float64)) for t in (sde.T, sde.t_min))
    x, exact = problem.noised(top, 3, 0), problem.exact
    assert isinstance(exact, sg.exact.Gaussian)
    close(dop853(problem.model(sde), x), exact.flow(x, top, bottom), rtol=0, atol=1e-8)


# ------------------------------------------------------------------------------------------ peers


def end_of(solver: sg.Solver | Peer, sde: sg.LinearSDE, n: int) -> tuple[Tensor, int]:
    """Where a method ends on the mixture, and its network calls."""
    problem = problems.mixture()
    model = problem.model(sde)
    x = problem.noised(sde(torch.tensor(sde.T, dtype=torch.float64)), 8, 0)
    times = sg.walks.log_snr(sde, n)
    if isinstance(solver, Peer):
        return solver.solve(model, x, times, None), model.nfe
    return sg.solve(model, x, solver=solver, walk=times).x, model.nfe


@sdes
@pytest.mark.parametrize(
    ("peer", "ours"),
    [
        ("k_euler", sg.DDIM()),
        ("k_heun", sg.Heun("rho")),
        ("k_dpmpp_2m", sg.DPMSolverPP(2)),
        ("diffusers_deis_3", sg.Multistep(3, prediction="eps")),
        ("diffusers_dpmpp_2m", sg.DPMSolverPP(2)),
        ("diffusers_dpm_3m", sg.solvers.DPMSolverMultistep(3, published=True)),
        ("azula_heun", sg.Heun("rho")),
        ("azula_xab_3", sg.Multistep(3)),
        ("azula_zab_3", sg.Multistep(3, prediction="eps")),
    ],
)
def test_adapters_run_the_method_they_name(sde: sg.LinearSDE, peer: str, ours: sg.Solver) -> None:
    """On every SDE: 16 steps, from which on diffusers does not lower the last order."""
    theirs, calls = end_of(PEERS[peer], sde, 16)
    mine, _ = end_of(ours, sde, 16)
    close(theirs, mine, rtol=0, atol=1e-8)
    assert calls == PEERS[peer].calls(16)


@pytest.mark.parametrize("name", FLOW)
def test_peers_converge_and_their_calls_are_as_said(name: str) -> None:
    peer, sde = FLOW[name], sg.VPSDE()
    exact, _ = end_of(sg.solvers.RK5("lam"), sde, 200)
    errors = []
    for n in (24, 96):
        end, calls = end_of(peer, sde, n)
        assert end.dtype == torch.float64 and calls == peer.calls(n)
        errors.append(float((end - exact).square().mean().sqrt()))
    assert errors[1] < errors[0] / 3


@pytest.mark.parametrize("name", [n for n, p in PEERS.items() if p.adaptive])
def test_peers_with_steps_of_their_own_follow_the_tolerance(name: str) -> None:
    problem, sde = problems.mixture(), sg.VPSDE()
    model = problem.model(sde)
    x = problem.noised(sde(torch.tensor(sde.T, dtype=torch.float64)), 8, 0)
    exact, times = (
        sg.solve(model, x, solver=sg.solvers.RK5("lam"), steps=200).x,
        sg.walks.log_snr(sde, 1),
    )
    errors = []
    for tol in (1e-2, 1e-5):
        end = PEERS[name].solve(model, x, times, tol)
        errors.append(float((end - exact).square().mean().sqrt()))
    assert errors[1] < errors[0] / 10 and errors[1] < 1e-3


@pytest.mark.parametrize("name", [n for n, p in PEERS.items() if p.eta == 1])
def test_peers_that_add_noise_sample_the_mixture(name: str, tmp_path: Path) -> None:
    how: dict[str, Any] = {"folder": tmp_path, "walk": "log_snr", "nfe": 60}
    found, again = (
        measure(problems.mixture(), sg.EDMSDE(), PEERS[name], Settings(draws=512), **how)
        for _ in range(2)
    )
    assert found["errors"]["sliced"] < 3 * found["floor"]["sliced"]
    assert found["errors"] == again["errors"]


def test_peers_draw_nothing_that_the_start_was_made_of() -> None:
    """With the same seed torch's generator would hand out the start's own noise again."""
    drawn: list[Tensor] = []

    class Drawing(Broken):
        def solve(self, model: sg.ScoreModel, x: Tensor, times: Tensor, tol: Any) -> Tensor:
            drawn.extend(torch.randn_like(x) for _ in range(3))
            return x

    problem, sde = problems.gaussian(), sg.VESDE()
    start = problem.noised(sde(torch.tensor(sde.T, dtype=torch.float64)), 64, 0)
    how: dict[str, Any] = {"walk": None, "nfe": 4, "steps": None, "tol": None, "seed": 0}
    run(Drawing(), problem.model(sde), start, **how)
    for z in drawn:
        assert abs(float((z * start).mean() / start.std())) < 0.15
    assert len(drawn) == 3


@pytest.mark.parametrize("name", PEERS)
def test_peers_are_the_same_when_built_from_a_configuration(name: str) -> None:
    assert build(node(PEERS[name])) == PEERS[name]


def test_libraries_that_are_missing_or_strange_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SUPPORTED, "nosuchlibrary", "1.0")
    with refused("nosuchlibrary is not installed"):
        need("nosuchlibrary")
    monkeypatch.setitem(SUPPORTED, "diffusers", "0.0")
    with refused("diffusers 0.42.* is not supported: the comparison knows 0.0"):
        need("diffusers")


# ----------------------------------------------------------------------------------------- errors


def test_pathwise_errors_are_those_of_the_samples() -> None:
    found = pathwise(torch.tensor([[3.0, 4.0], [0.0, 0.0], [1.0, 1.0]]), torch.zeros(3, 2))
    assert found["median"] == pytest.approx(1)
    assert found["rms"] == pytest.approx(((12.5 + 0 + 1) / 3) ** 0.5)
    assert found["q90"] == pytest.approx(1 + 0.8 * (12.5**0.5 - 1))


def test_distances_between_gaussians_are_those_in_closed_form() -> None:
    """Of N(0, 1) and N(m, 1) on the line: E|x| of normals, and a Gaussian kernel's integrals."""
    m, n = 1.0, 4000
    a, b = normal(n, 1), normal(n, 1, seed=1) + m
    unit = torch.distributions.Normal(0.0, 1.0)

    def spread(mean: float) -> float:  # E|y| of y ~ N(mean, 2)
        s, at = 2**0.5, torch.tensor(mean / 2**0.5)
        return float(2 * s * unit.log_prob(at).exp() + mean * (2 * unit.cdf(at) - 1))

    exact = (2 * spread(m) - 2 * spread(0.0)) ** 0.5
    assert energy_distance(a, b) == pytest.approx(exact, rel=0.06)
    w2 = float(torch.cdist(b, b).median()) ** 2
    kernel = [
        (w2 / (w2 + 2)) ** 0.5 * torch.tensor(-(d**2) / (2 * (w2 + 2))).exp() for d in (0, m)
    ]
    assert mmd(a, b) == pytest.approx(float(2 * kernel[0] - 2 * kernel[1]) ** 0.5, rel=0.06)
    assert energy_distance(a, normal(n, 1, seed=2)) < 0.1 and mmd(a, normal(n, 1, seed=2)) < 0.05


# ----------------------------------------------------------------------------------------- points


def test_a_point_holds_errors_calls_and_costs(tmp_path: Path) -> None:
    problem, sde = problems.mixture(), sg.VPSDE()
    few = Settings(n=8, draws=64)

    def at(solver: Any, settings: Settings = few, walk: Any = "log_snr", **how: Any) -> Any:
        return measure(problem, sde, solver, settings, folder=tmp_path, walk=walk, **how)

    point = at(sg.DDIM(), replace(few, repeats=1), nfe=10)
    assert point["kind"] == "path" and point["nfe"] == 10
    assert 0 < point["errors"]["median"] < point["errors"]["q90"] < 1
    cost = point["cost"]
    assert cost["reads per call"] < 0.3 and cost["kernels per call"] == pytest.approx(2, abs=1)
    assert 0 < cost["solver seconds"] < cost["seconds"]
    assert at(sg.DDIM(), nfe=80)["errors"]["median"] < point["errors"]["median"] / 4
    law = at(sg.Ancestral(), nfe=20)
    assert law["kind"] == "law" and set(law["errors"]) == set(law["floor"])
    adaptive = at(sg.solvers.AdaptiveMultistep(), walk=None, tol=1e-4)
    assert adaptive["errors"]["rms"] < 1e-2 and adaptive["nfe"] > 20
    single = at(sg.DDIM(), replace(few, dtype="float32"), nfe=10)
    assert single["errors"]["median"] == pytest.approx(point["errors"]["median"], rel=1e-3)


def test_a_walk_that_climbs_adds_noise(tmp_path: Path) -> None:
    """It is judged as a distribution, and other libraries' loops cannot follow it."""
    problem, sde, few = problems.mixture(), sg.VPSDE(), Settings(n=8, draws=64)
    walk = partial(sg.walks.zigzag, grid=sg.walks.log_snr, by=sg.walks.ancestral)
    found = measure(problem, sde, sg.DDIM(), few, folder=tmp_path, walk=walk, nfe=10)
    assert found["kind"] == "law" and found["nfe"] == 10 and "strong" not in found
    with refused("This walk climbs, which k-diffusion's loops cannot follow"):
        measure(problem, sde, PEERS["k_euler"], few, folder=tmp_path, walk=walk, nfe=10)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"n": 1}, "n must be a whole number >= 2"),
        ({"draws": 2}, "draws must be a whole number >= 3"),
        ({"seed": "x"}, "seed must be a whole number >= 0"),
        ({"repeats": -1}, "repeats must be a whole number >= 0"),
        ({"dtype": "float16"}, "Unknown dtype"),
        ({"device": "tpu"}, "Unknown device"),
        ({"device": "cuda"}, "torch sees no CUDA device"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    wrong: Any, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with refused(why):
        Settings(**wrong)


def test_budgets_and_tolerances_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    problem, sde = problems.mixture(), sg.VPSDE()
    for solver, how, why in (
        (sg.DDIM(), {"tol": 1e-3}, "takes a budget"),
        (sg.solvers.AdaptiveMultistep(), {"nfe": 5}, "takes a tolerance"),
        (sg.Heun(), {"nfe": 1}, "at least 2 network calls"),
        (KDiffusion("heun", evals=2), {"nfe": 1}, "at least 2 network calls"),
        (PEERS["k_dpm_adaptive"], {"tol": 1e-20}, "tol must be at least 1e-12"),
    ):
        with refused(why):
            measure(problem, sde, solver, Settings(n=4), folder=tmp_path, **how)  # type: ignore[arg-type]
    with refused("Other libraries run in float64"):
        single = Settings(n=4, dtype="float32")
        measure(problem, sde, PEERS["k_euler"], single, folder=tmp_path, nfe=4)


class Broken(Peer):
    """One sample does not arrive."""

    library = "nobody's"

    def solve(self, model: sg.ScoreModel, x: Tensor, times: Tensor, tol: float | None) -> Tensor:
        """NaN for the first."""
        model(x, times[0])
        return torch.cat([x[:1] * torch.nan, x[1:]])


def test_a_failed_solve_is_said(tmp_path: Path) -> None:
    point = measure(
        problems.mixture(), sg.EDMSDE(), Broken(), Settings(n=3), folder=tmp_path, nfe=4
    )
    assert point["failed"] == "1 of 3 samples did not arrive" and "errors" not in point


def test_whose_a_method_is() -> None:
    assert library_of(sg.DDIM()) == "sdegen" and library_of(sg.solvers.SciPy()) == "SciPy"
    assert library_of(sg.solvers.TorchDiffEq()) == "torchdiffeq"
    assert library_of(PEERS["k_heun"]) == "k-diffusion"


# ---------------------------------------------------------------------------------------- results


def written(folder: Path, **points: dict[str, Any]) -> Path:
    """A folder of points by name."""
    (folder / "points").mkdir(parents=True)
    for name, point in points.items():
        (folder / "points" / f"{name}.json").write_text(json.dumps(point))
    return folder


def point(library: str, solver: str, nfe: int, error: float, **more: Any) -> dict[str, Any]:
    """One that was made up."""
    settings = {"problem": "mixture", "sde": "vp", "solver": solver, "walk": "log_snr"}
    settings |= {"nfe": nfe, "dtype": "float64", **more.pop("settings", {})}
    made = {"version": VERSION, "library": library, "kind": "path", "settings": settings}
    errors = {name: error for name in ("rms", "median", "q90")}
    return {**made, "errors": errors, "nfe": nfe, "about": {}, "agreement": 0.0, **more}


def test_the_best_and_the_fixed_choice(tmp_path: Path) -> None:
    a, b, c = (
        Choice(*names) for names in
        (("sdegen", "a", "log_snr"), ("sdegen", "b", "log_snr"), ("other", "c", "log_snr"))
    )  # fmt: skip
    adaptive = point("sdegen", "d", 7, 0.2)
    adaptive["settings"] |= {"walk": None, "tol": 0.1}
    del adaptive["settings"]["nfe"]
    results = load(
        written(
            tmp_path,
            p1=point("sdegen", "a", 5, 1.0),
            p2=point("sdegen", "a", 10, 0.4),
            p3=point("sdegen", "b", 5, 2.0),
            p4=point("sdegen", "b", 10, 0.1),
            p5=point("other", "c", 5, 0.5),
            p6=point("other", "c", 10, 0.2),
            p7=adaptive,
            p8={**point("other", "e", 5, 0.0), "failed": "no way"},
        )
    )
    assert results.budgets == [5, 10] and results.libraries() == ["other"]
    assert [hole["failed"] for hole in results.holes] == ["no way"]
    errors = results.errors()
    five, ten = Cell("mixture", "vp", 5), Cell("mixture", "vp", 10)
    assert cells_of(errors) == [five, ten]
    assert best(errors, five) == (c, 0.5) and best(errors, five, True) == (a, 1.0)
    assert best(errors, ten) == (b, 0.1) and best(errors, ten, False) == (c, 0.2)
    # The adaptive one is within ten calls, not within five.
    assert errors[Choice("sdegen", "d", None)] == {ten: 0.2}
    ranking = fixed(errors, [five, ten])
    assert [f.choice for f in ranking] == [c, b, a]
    assert [f.ratio for f in ranking] == pytest.approx([2**0.5, 2, 8**0.5])


def test_the_published_table_says_what_the_points_say(tmp_path: Path) -> None:
    """And makes itself again."""
    law = {**point("sdegen", "e", 5, 0.3), "kind": "law", "floor": {"sliced": 0.1}}
    law |= {"errors": {"sliced": 0.25}, "weak": {"mean": 0.0, "variance": 0.125}}
    own = point("other", "d", 7, 0.25, agreement=1e-9)
    own["settings"] |= {"walk": None, "tol": 1e-3, "n": 4}
    del own["settings"]["nfe"]
    hole = {**point("other", "c", 5, 0.0), "failed": "no way, no"}
    folder = written(tmp_path / "a", p1=point("sdegen", "a", 5, 1 / 3), p2=own, p3=law, p4=hole)
    results = load(folder)
    write_csv(results, tmp_path / "points.csv.gz")
    again = load(tmp_path / "points.csv.gz")
    write_csv(again, tmp_path / "again.csv.gz")
    assert (tmp_path / "again.csv.gz").read_bytes() == (tmp_path / "points.csv.gz").read_bytes()
    close(
        torch.tensor([v for row in again.errors().values() for v in row.values()]),
        torch.tensor([v for row in results.errors().values() for v in row.values()]),
        rtol=1e-4,
    )
    assert again.errors().keys() == results.errors().keys()
    assert again.weak() == results.weak() and again.distances() == results.distances()
    assert [each["failed"] for each in again.holes] == ["no way, no"]
    (tmp_path / "other.csv.gz").write_bytes(gzip.compress(b"a,b\n1,2\n"))
    with refused("no table of this version's points"):
        load(tmp_path / "other.csv.gz")
    (folder / "points" / "p1.json").write_text("{")
    with refused("p1.json is damaged"):
        load(folder)


def test_points_that_would_hide_one_another_are_refused(tmp_path: Path) -> None:
    twice = {"a": point("sdegen", "a", 5, 1.0), "b": point("sdegen", "a", 5, 3.0)}
    with refused("Two points are a / log_snr at mixture vp 5"):
        load(written(tmp_path, **twice)).errors()


def test_of_an_adaptive_solver_the_tightest_tolerance_counts(tmp_path: Path) -> None:
    """Not the luckiest; and no error is smaller than what the reference is sure of."""
    made = {}
    for tol, nfe, error in ((1e-1, 4, 0.01), (1e-2, 5, 0.2), (1e-3, 9, 0.0)):
        made[f"p{nfe}"] = point("sdegen", "d", nfe, error, agreement=1e-9)
        made[f"p{nfe}"]["settings"] |= {"walk": None, "tol": tol}
        del made[f"p{nfe}"]["settings"]["nfe"]
    found = load(
        written(tmp_path, **made, x=point("other", "c", 5, 1.0), y=point("other", "c", 10, 1.0))
    )
    (row,) = (row for choice, row in found.errors().items() if choice.ours)
    assert list(row.values()) == [0.2, 1e-9]


def test_tuned_solvers_are_no_blind_choice(tmp_path: Path) -> None:
    made = {"a": point("sdegen", "tuned_weights", 5, 0.1), "b": point("sdegen", "b", 5, 0.2)}
    errors = load(written(tmp_path, **made)).errors()
    assert [f.choice.solver for f in fixed(errors, cells_of(errors))] == ["b"]
    (cell,) = cells_of(errors)
    found = best(errors, cell, True)
    assert found is not None and found.choice.solver == "tuned_weights"


def test_folders_without_points_or_of_another_version_are_refused(tmp_path: Path) -> None:
    with refused("no points in"):
        load(tmp_path)
    old = {**point("sdegen", "a", 5, 1.0), "version": VERSION + 1}
    with refused(f"of version {VERSION + 1}, but this is {VERSION}"):
        load(written(tmp_path, p=old))


assert SDES
