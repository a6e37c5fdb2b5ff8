"""Methods of inverse problems beside posteriors that are known: how far off is each, and where.

    python benchmarks/posteriors.py                      writes benchmarks/posteriors.json, minutes
    python benchmarks/posteriors.py --quick --out x.json a look, in seconds
    python benchmarks/posteriors.py --table              the record as docs/inverse.md shows it

Three problems whose posterior is exact: a Gaussian in four dimensions of which two numbers are
seen, with noise of 0.3 and of 0.05; a mixture of four in the plane whose first coordinate is seen;
the digits themselves as a prior, seen by their upper half or as means of 2 x 2 or 4 x 4 pixels.
Every method on VP, equal steps in lam, eta = 1, by DPM-Solver++(2M), but the published steps by
DDPM; the table says what each draws, for how many evaluations and products with the Jacobian, and
no ranking: off Gaussians none is exact, and the order changes with the problem.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import sdegen as sg
from sdegen.data import digits
from sdegen.exact import Empirical, Gaussian, Mixture, exact_model, posterior
from sdegen.files import read_json, write_json
from sdegen.guidance import (
    Average,
    Known,
    Mask,
    Observed,
    Operator,
    PublishedDPS,
    ddnm,
    dps,
    jfps,
    mcg,
    mmps,
    pigdm,
    tmpd,
)

OUT = Path(__file__).with_suffix(".json")
SDE = sg.VPSDE()
Row = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Matrix(Operator):
    """A matrix (m, d) as an operator of states (b, d)."""

    A: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """A x."""
        return x @ self.A.T

    def T(self, y: Tensor) -> Tensor:
        """A^T y."""
        return y @ self.A

    def pinv(self, y: Tensor) -> Tensor:
        """A^+ y."""
        return y @ torch.linalg.pinv(self.A).T


@dataclass(frozen=True, eq=False)
class Case:
    """A prior, what is seen of it, and how samples are judged."""

    prior: Any
    A: Operator
    y: Tensor
    std: float
    cov: Tensor
    shape: tuple[int, ...]
    steps: int
    judge: Callable[[Tensor], Row]
    exact: Callable[[], Any] | None = None
    most: int = 4
    zeta: float = 0.3


def methods(case: Case) -> dict[str, tuple[Any, dict[str, Any]]]:
    """Every method's model and how it is sampled."""
    m, y, A, std = exact_model(case.prior, SDE), case.y, case.A, case.std
    times = sg.walks.log_snr(SDE, case.steps)
    usual = {"solver": sg.DPMSolverPP(2), "walk": times, "eta": 1.0}
    steps = {"solver": sg.DDIM(1.0), "walk": times}
    climbs = sg.recipes.repaint(case.steps + 1, 10, 10, grid=sg.walks.log_snr)
    mixing = sg.PredictorCorrector(sg.DDIM(), sg.Langevin(0.7), n=10)
    two = {"out": "identity", "within": "identity"}
    found: dict[str, tuple[Any, dict[str, Any]]] = {
        "DPS, Bayes": (dps(m, y, A, std), usual),
        "DPS, published": (PublishedDPS(m, y, A, times, case.zeta), steps),
        "MCG": (mcg(m, y, A, times, case.zeta), steps),
        "PiGDM": (pigdm(m, y, A, std, iterations=case.most), usual),
        "TMPD": (tmpd(m, y, A, std, iterations=case.most), usual),
        "MMPS(1)": (mmps(m, y, A, std, iterations=1), usual),
        f"MMPS({case.most})": (mmps(m, y, A, std, iterations=case.most), usual),
        "DDNM": (ddnm(m, y, A), usual),
        "DDNM, noise": (Observed(m, y, A, std, iterations=case.most, **two), usual),  # type: ignore[arg-type]
        "JFPS": (jfps(m, y, A, std, case.cov, iterations=case.most), usual),
        "RePaint": (ddnm(m, y, A), climbs),
        "PiGDM, Langevin": (
            pigdm(m, y, A, std, iterations=case.most),
            {"solver": mixing, "walk": times},
        ),
    }
    if isinstance(A, Mask):
        found["RePaint"] = (Known(m, y, A.mask), climbs)
    if case.exact is not None:
        found = {"exact": (case.exact(), usual), **found}
    return found


def measured(case: Case, n: int) -> dict[str, Row]:
    """The rows of a case."""
    rows = {}
    for name, (model, how) in methods(case).items():
        before = model.vjps
        start = torch.randn(
            n, *case.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
        )
        done = sg.solve(model, start, seed=1, **how)
        x = done.x.double()
        broken = not bool(x.isfinite().all()) or float(x.abs().max()) > 1e3
        told = {"exploded": True} if broken else case.judge(x)
        rows[name] = {**told, "nfe": int(done.nfe.max()), "vjps": model.vjps - before}
        print(f"  {name:18s}" + "  ".join(f"{k} {v}" for k, v in rows[name].items()), flush=True)
    return rows


def moments(x: Tensor, mean: Tensor, cov: Tensor) -> Row:
    """The mean's error and the covariance's, over the posterior's own."""
    size = cov.norm()
    return {
        "mean": round(float((x.mean(0) - mean).norm()), 3),
        "cov": round(float((x.T.cov() - cov).norm() / size), 3),
    }


def gaussian(std: float, steps: int) -> Case:
    """Four dimensions, two numbers seen."""
    root = torch.randn(4, 4, generator=torch.Generator().manual_seed(3)).double()
    cov = root @ root.T + 0.1 * torch.eye(4)
    mean = torch.tensor([0.5, -0.3, 0.2, 0.1]).double()
    A = torch.tensor([[1.0, 0.5, 0.0, -0.3], [0.0, 1.0, 0.7, 0.2]]).double()
    prior, y = Gaussian(mean, cov), torch.tensor([[0.4, -0.8]]).double()
    known = posterior(prior, A, y, std)
    return Case(
        prior,
        Matrix(A),
        y,
        std,
        cov,
        (4,),
        steps,
        lambda x: moments(x, known.mean, known.cov),  # type: ignore[arg-type]
        lambda: exact_model(known, SDE),
        most=2,
    )


def mixture(steps: int) -> Case:
    """Four modes in the plane, the first coordinate seen."""
    means = torch.tensor([[0.9, -0.2], [-0.1, 0.9], [-1.0, 0.5], [0.5, -1.0]]).double()
    stds, weights = torch.tensor([0.25, 0.3, 0.3, 0.3]).double(), torch.full((4,), 0.25).double()
    prior, std = Mixture(means, stds, weights), 0.1
    mask, y = torch.tensor([[True, False]]), torch.tensor([[0.45, 0.0]]).double()
    known = posterior(prior, torch.tensor([[1.0, 0.0]]), y[:, :1], std)
    mean = known.weights @ known.means
    off = known.means - mean
    cov = torch.einsum("k,kij->ij", known.weights, known.covs) + off.T @ (
        known.weights[:, None] * off
    )
    own = (weights[:, None] * (means - weights @ means)).T @ (means - weights @ means)

    def judge(x: Tensor) -> Row:
        kinds = torch.linalg.inv(known.covs)
        d = x[:, None] - known.means
        near = torch.einsum("nki,kij,nkj->nk", d, kinds, d) + torch.logdet(known.covs)
        share = torch.bincount(near.argmin(1), minlength=4) / len(x)
        return {**moments(x, mean, cov), "weights": [round(float(s), 2) for s in share]}

    return Case(
        prior,
        Mask(mask),
        y,
        std,
        own + float(weights @ stds**2) * torch.eye(2),
        (2,),
        steps,
        judge,
        lambda: exact_model(known, SDE),
        most=2,
    )


def pictures(kind: str, n: int, points: int, steps: int) -> Case:
    """The digits' own distribution, seen in part: the share of samples whose nearest digit is one
    of those that have 99 % of the posterior."""
    data = digits("train").x.double()[:points]
    prior = Empirical(data)
    mask = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    mask[:, :, :4] = True
    seen_by: dict[str, tuple[Operator, float]] = {
        "upper half": (Mask(mask), 0.3),
        "means of 2 x 2": (Average(2), 0.2),
        "means of 4 x 4": (Average(4), 0.2),
    }
    A, std = seen_by[kind]
    generator = torch.Generator().manual_seed(7)
    seen = data[torch.randperm(len(data), generator=generator)[:n]]
    y = A(seen)
    z = torch.randn(y.shape, dtype=torch.float64, generator=generator)
    y = A(A.pinv(y + std * z))  # no noise where nothing is seen
    inside = torch.zeros(n, len(data), dtype=torch.bool)
    for i in range(n):
        w = posterior(prior, lambda x: A(x), y[i], std).weights
        order = w.argsort(descending=True)
        kept = int((w[order].cumsum(0) < 0.99).sum()) + 1
        inside[i, order[:kept]] = True

    def judge(x: Tensor) -> Row:
        near = torch.cdist(x.flatten(1), data.flatten(1)).argmin(1)
        misfit = (A(x) - y).flatten(1).square().sum(1)
        values = int((A(torch.ones_like(x[:1])) != 0).sum())
        return {
            "in the 99 % set": round(float(inside[torch.arange(n), near].double().mean()), 3),
            "residual": round(float((misfit / values).mean().sqrt() / std), 2),
        }

    def exact() -> Any:
        """Each measurement's own posterior, sampled as the methods are."""
        known = [posterior(prior, lambda x: A(x), each, std) for each in y]

        def denoised(x: Tensor, t: Tensor) -> Tensor:
            each = zip(known, x.split(1), t, strict=True)
            return torch.cat([one.denoise(row, SDE(at.double())) for one, row, at in each])

        return sg.ScoreModel(denoised, SDE, "x0")

    flat = data.flatten(1)
    cov = flat.T.cov() + 1e-6 * torch.eye(64)
    return Case(prior, A, y, std, cov, (1, 8, 8), steps, judge, exact, zeta=1.0)


def cell(row: Row | None) -> str:
    """What a method draws on one problem, in a table."""
    if row is None:
        return ""
    if row.get("exploded"):
        return "explodes"
    if "in the 99 % set" in row:
        return f"{row['in the 99 % set']:.2f}"
    weights = " ".join(f"{w:.2f}" for w in row.get("weights", ()))
    return f"{row['mean']:.3f}, {row['cov']:.3f}" + (f"; {weights}" if weights else "")


def table(rows: dict[str, dict[str, Row]]) -> str:
    """The record in Markdown: a row for each method, MMPS of most iterations in one."""

    def known_as(method: str) -> str:
        most = method.startswith("MMPS(") and method != "MMPS(1)"
        return "MMPS(2), digits (4)" if most else method

    each = {
        name: {known_as(method): row for method, row in found.items()}
        for name, found in rows.items()
    }
    lines = [f"| | {' | '.join(each)} | evaluations, products a step |", "|---" * 8 + "|"]
    for method in each["mixture"]:
        one, other = (each[name].get(method) for name in ("mixture", "digits, upper half"))
        calls = round(one["nfe"] / 60)
        first, then = (round(calls * r["vjps"] / r["nfe"]) for r in (one, other or one))
        spent = f"{calls}, {first}" + (f" (digits {then})" if then != first else "")
        cells = [cell(found.get(method)) for found in each.values()]
        lines.append(f"| {method} | {' | '.join(cells)} | {spent} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, write and print."""
    parse = argparse.ArgumentParser(description=__doc__)
    parse.add_argument("--quick", action="store_true")
    parse.add_argument("--out", type=Path, default=OUT)
    parse.add_argument("--table", action="store_true")
    args = parse.parse_args()
    if args.table:
        print(table(read_json(args.out)["rows"]))
        return
    torch.set_num_threads(1)
    few = args.quick
    steps = 10 if few else 60
    cases = {
        "gaussian, std 0.3": (gaussian(0.3, steps), 200 if few else 10_000),
        "gaussian, std 0.05": (gaussian(0.05, steps), 200 if few else 10_000),
        "mixture": (mixture(steps), 200 if few else 4_000),
    }
    n = 8 if few else 256
    for kind in ("upper half", "means of 2 x 2", "means of 4 x 4"):
        case = pictures(kind, n, 100 if few else 1500, 10 if few else 50)
        cases[f"digits, {kind}"] = case, n
    record: dict[str, Any] = {
        "what": "samples of methods of inverse problems beside exact posteriors, VP, eta = 1",
        "on": "one thread of a 2-core x86-64 virtual machine",
        "torch": torch.__version__,
        "sdegen": sg.__version__,
        "python": platform.python_version(),
        "rows": {},
    }
    for name, (case, samples) in cases.items():
        print(f"{name}, {samples} samples, {case.steps} steps", flush=True)
        record["rows"][name] = measured(case, samples)
    write_json(args.out, record)


if __name__ == "__main__":
    main()
