"""What a step's variance is worth: terms of DDPM's bound, in bits per dimension, by steps.

    python benchmarks/variances.py                             writes benchmarks/variances.json
    python benchmarks/variances.py --run outputs/digits --head outputs/npr    digits too
    python benchmarks/variances.py --hybrid outputs/heads/iddpm --alone outputs/alone    and IDDPM
    python benchmarks/variances.py --table                     the tables of docs/few-steps.md
    python benchmarks/variances.py --quick --out folder        in seconds

mixture: three Gaussians in the plane and their exact mean: DDPM's small and large variance, the
         best number of each step (Analytic-DPM's) and the best of each step and coordinate, v* of
         each state, and trained heads (``fit_head``, MLPs of width 64), NPR-DPM's and SN-DPM's.
biased:  the same with a mean that is off by 0.2 sin 3x in eps, and what exact heads of both kinds
         make of it.
digits:  a run and a head that was trained on it, on held-out digits; what is fitted to a step is
         fitted to training digits.
hybrid:  a run of ``hybrid_loss`` beside DDPM's variances of the same mean, on held-out digits, and
         what its mean loses against the same run with loss.share=0, whose head learns nothing:
         L_simple of both, of the same draws at levels equal in lam.

The sum of the steps' KLs alone, on equal steps in lam: prior and last term are the same for all.
All rows of a table have the same draws.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import sdegen as sg
from sdegen.distill import fit_head
from sdegen.exact import Mixture
from sdegen.files import read_header, read_json, write_json
from sdegen.likelihood import discrete_elbo
from sdegen.networks import MLP
from sdegen.runs.folder import WEIGHTS
from sdegen.sde.level import expand
from sdegen.solvers import Range, Residual, Square
from sdegen.solvers.variances import of_data

HERE = Path(__file__).parent
VP = sg.VPSDE()
MIXTURE = Mixture([[-2.0, -1.5], [2.0, 1.0], [0.0, 2.0]], [0.2, 0.3, 0.15], [0.3, 0.4, 0.3])
DEMANDS = {
    ("NPR head", "v*"): 0.02,
    ("SN head", "v*"): 0.02,
    ("NPR head", "best number of a step"): -0.1,
}
"""What was wished for of the mixture at 25 steps: of two columns the difference at most."""


def eps_bias(x: Tensor) -> Tensor:
    """How far the biased mean is off, in eps."""
    return 0.2 * (3 * x).sin()


def exact(kind: str, bias: bool = False) -> sg.ScoreModel:
    """The mixture's mean, off or not, beside what a head of a kind says of it at its best."""

    def net(x: Tensor, t: Tensor) -> Tensor:
        level = VP(t)
        x0, spread = MIXTURE.denoise(x, level), MIXTURE.variance(x, level)
        eps = (x - expand(level.alpha, x) * x0) / expand(level.sigma, x)
        variance = spread / expand(level.rho, x) ** 2
        off = eps_bias(x) if bias else torch.zeros_like(x)
        more = variance + (off.square() if kind == "npr" else eps.square())
        return torch.cat([eps + off, more], 1)

    return sg.ScoreModel(net, VP, "eps", time="t", heads=2)


@dataclass(frozen=True)
class Fitted:
    """A head that knows E (eps - eps_hat)^2 of each of a walk's times: what data (n, *) had there,
    one number a step, or one for each coordinate."""

    known: dict[float, Tensor]

    @classmethod
    def to(cls, model: Any, data: Tensor, steps: int, each: bool) -> Fitted:
        """Measured on data, at the steps of a walk."""
        draws, known, sde = torch.Generator().manual_seed(1), {}, model.sde
        for t in sg.walks.log_snr(sde, steps)[:-1]:
            level = sde(t)
            z = torch.randn(data.shape, generator=draws, dtype=data.dtype)
            with torch.no_grad():
                off = (model(sde.mix(data, level, z), level).eps - z).double().square()
            known[float(t)] = off.mean(0, keepdim=True) if each else off.mean()
        return cls(known)

    def variance(self, p: Any, t: Any, s: Any, mean_eta: float) -> Tensor:
        """Of the step from t to s."""
        return of_data(p, self.known[float(t.t)].expand_as(p.x0), t, s, mean_eta)


def bits(model: Any, x: Tensor, steps: int, variance: Any) -> float:
    """The terms' mean."""
    found = discrete_elbo(model, x, steps=steps, variance=variance, seed=0).diffusion
    return float(found.mean()) / (x[0].numel() * math.log(2))


def row_of(model: Any, x: Tensor, steps: int, fit: Tensor, own: Any = None) -> dict[str, float]:
    """What needs no head. own: the model as it is on what is fitted to."""
    own = model if own is None else own
    row = {name: bits(model, x, steps, name) for name in ("small", "large")}
    row["best number of a step"] = bits(model, x, steps, Fitted.to(own, fit, steps, False))
    row["best of a coordinate"] = bits(model, x, steps, Fitted.to(own, fit, steps, True))
    return row


def mixture(quick: bool) -> dict[str, Any]:
    """The tables of the plane."""
    steps, n = (20, 50) if quick else (3000, 4000)
    data = MIXTURE.sample(50_000, torch.Generator().manual_seed(1))
    x, fit = MIXTURE.sample(n, torch.Generator().manual_seed(2)), data[: 5 * n]
    mean = sg.ScoreModel(lambda y, t: MIXTURE.denoise(y, VP(t)), VP, "x0", time="t")
    heads, begun = {}, time.process_time()
    for name, head in (("NPR head", Residual()), ("SN head", Square())):
        torch.manual_seed(0)
        how: dict[str, Any] = {"net": MLP(2, width=64), "batch_size": 512}
        heads[name] = head, fit_head(mean, head, data.float(), steps, **how)
    found: dict[str, Any] = {
        "how": f"{n} samples; heads of {steps} steps of 512 of {len(data)} samples; what is "
        f"fitted is fitted to {len(fit)} of these",
        "CPU seconds of training": round(time.process_time() - begun, 1),
    }
    table, biased = {}, {}
    for count in (10, 25, 50):
        row = row_of(exact("npr"), x, count, fit)
        row["v*"] = bits(exact("npr"), x, count, Residual())
        row |= {name: bits(model, x, count, head) for name, (head, model) in heads.items()}
        table[str(count)] = row
        off = row_of(exact("npr", True), x, count, fit)
        off["NPR, exact"] = bits(exact("npr", True), x, count, Residual())
        off["SN, exact"] = bits(exact("sn", True), x, count, Square())
        biased[str(count)] = off
    wished = [
        {"wish": f"{one} - {other}, 25 steps", "at most": most, "found": gap, "met": gap <= most}
        for (one, other), most in DEMANDS.items()
        for gap in [table["25"][one] - table["25"][other]]
    ]
    return {**found, "rows": table, "wished": wished, "biased": biased}


def said_of(folder: Path) -> str:
    """How a run was trained, as its weights say it."""
    header = read_header(folder / WEIGHTS)
    config = header["config"]
    net = config.get("head_net") or config["net"]
    kind = str(net["_target_"]).rpartition(".")[2]
    steps, size = header["step"], config["train"]["batch_size"]
    return f"{kind} of width {net.get('width')}, {steps} steps of {size}"


def digits(run: Path, head: Path | None, n: int) -> dict[str, Any]:
    """The table of a run on held-out digits, with that of a head that was trained on it."""
    from sdegen.data import digits as data_of

    train, test = data_of("train"), data_of("test")
    fit, x = train.x[:n], test.x[:n]
    model = sg.load(run)
    known, own = model.given(y=test.y[:n]), model.given(y=train.y[:n])
    how = f"{len(x)} held-out digits, {len(fit)} to fit to; the run: {said_of(run)}"
    two = None
    if head is not None:
        two = sg.load(head).given(y=test.y[:n])
        how += f"; its head: {said_of(head)}"
    rows = {}
    for count in (10, 25):
        rows[str(count)] = row_of(known, x, count, fit, own)
        if two is not None:
            rows[str(count)]["NPR head"] = bits(two, x, count, Residual())
    return {"how": how, "rows": rows}


@torch.no_grad()
def simple(model: Any, x: Tensor, draws: int = 64) -> float:
    """L_simple of data x (n, *): |eps - eps_hat|^2 at levels equal in lam, its mean."""
    random, total = torch.Generator().manual_seed(0), 0.0
    for t in sg.walks.log_snr(model.sde, draws):
        level = model.sde(t)
        z = torch.randn(x.shape, generator=random, dtype=x.dtype)
        off = model(model.sde.mix(x, level, z), level).eps - z
        total += float(off.double().square().mean()) / (draws + 1)
    return total


def hybrid(run: Path, alone: Path, n: int) -> dict[str, Any]:
    """The table of a mean and a variance that were trained together, on held-out digits."""
    from sdegen.data import digits as data_of

    test = data_of("test")
    x, y = test.x[:n], test.y[:n]
    both, mean = (sg.load(each).given(y=y) for each in (run, alone))
    heads: dict[str, Any] = {"small": "small", "large": "large", "hybrid": Range()}
    rows = {
        str(count): {name: bits(both, x, count, head) for name, head in heads.items()}
        for count in (10, 25)
    }
    losses = {"hybrid": simple(both, x), "share=0": simple(mean, x)}
    gaps = {
        f"hybrid - the better of small and large, {count} steps": (
            row["hybrid"] - min(row["small"], row["large"]),
            0.0,
        )
        for count, row in rows.items()
    }
    gaps["L_simple of hybrid / share=0 - 1"] = losses["hybrid"] / losses["share=0"] - 1, 0.01
    wished = [
        {"wish": name, "at most": most, "found": gap, "met": gap <= most}
        for name, (gap, most) in gaps.items()
    ]
    if said_of(run) != said_of(alone):
        raise ValueError(f"{run} is {said_of(run)}, but {alone} is {said_of(alone)}.")
    how = f"{len(x)} held-out digits; both runs: {said_of(run)}"
    return {"how": how, "rows": rows, "L_simple": losses, "wished": wished}


def written(rows: dict[str, dict[str, float]], leave: Sequence[str] = ()) -> str:
    """A table in Markdown."""
    names = [name for name in next(iter(rows.values())) if name not in leave]
    lines = ["| steps | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for count, row in rows.items():
        lines.append(f"| {count} | " + " | ".join(f"{row[name]:.3f}" for name in names) + " |")
    return "\n".join(lines)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path)
    parser.add_argument("--head", type=Path)
    parser.add_argument("--hybrid", type=Path)
    parser.add_argument("--alone", type=Path)
    parser.add_argument("--n", type=int, default=400)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--out", type=Path, default=HERE)
    asked = parser.parse_args()
    for one, other in (("head", "run"), ("hybrid", "alone"), ("alone", "hybrid")):
        if getattr(asked, one) is not None and getattr(asked, other) is None:
            parser.error(f"--{one} is measured beside --{other}: give both")
    if asked.run is not None and asked.hybrid is not None:
        parser.error("--run and --hybrid are two tables: give one of them")
    if asked.quick and asked.out == HERE:
        parser.error("--quick is no record: give --out as well")
    path = asked.out / "variances.json"
    found = read_json(path) if path.is_file() else {}
    if not asked.table:
        torch.set_num_threads(1)
        on = f"one thread of {os.cpu_count()} cores, {platform.machine()}, CPU"
        versions = {"torch": torch.__version__, "python": platform.python_version()}
        begun = time.process_time()
        if asked.hybrid is not None:
            name, part = "hybrid", hybrid(asked.hybrid, asked.alone, asked.n)
        elif asked.run is not None:
            name, part = "digits", digits(asked.run, asked.head, asked.n)
        else:
            name, part = "mixture", mixture(asked.quick)
        spent = {"CPU seconds": round(time.process_time() - begun, 1)}
        found[name] = {"on": on, **versions, **spent, **part}
        write_json(path, found)
    for name in ("mixture", "digits", "hybrid"):
        if name in found:
            print(f"\n{name}: {found[name]['how']}\n\n{written(found[name]['rows'])}")
    if "mixture" in found:
        print(f"\nbiased:\n\n{written(found['mixture']['biased'])}\n")
    for part in found.values():
        for each in part.get("wished", []):
            missed = "" if each["met"] else ": missed"
            most = f"wished {each['at most']:+.3f} at most"
            print(f"{each['wish']}: {each['found']:+.3f}, {most}{missed}")


if __name__ == "__main__":
    main()
