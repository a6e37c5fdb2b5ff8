"""What a step's variance is worth: terms of DDPM's bound, in bits per dimension, by steps.

    python benchmarks/variances.py                             writes benchmarks/variances.json
    python benchmarks/variances.py --run outputs/digits --head outputs/npr    digits too
    python benchmarks/variances.py --quick --out folder        in seconds

mixture: three Gaussians in the plane and their exact mean: DDPM's small and large variance, the
         best scalar of each step, the best of each state and coordinate, and a trained head
         (``fit_head``, an MLP of width 64).
digits:  a run and a head that was trained on it, on held-out digits; the best scalar and the best
         number per pixel of each step are fitted to the training digits.

The sum of the steps' KLs alone, on equal steps in lam: prior and last term are the same for all.
"""

from __future__ import annotations

import argparse
import math
import platform
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import sdegen as sg
from sdegen.distill import fit_head
from sdegen.exact import Mixture
from sdegen.files import read_json, write_json
from sdegen.likelihood import discrete_elbo
from sdegen.networks import MLP
from sdegen.solvers import Residual
from sdegen.solvers.variances import kl, parts

HERE = Path(__file__).parent
VP = sg.VPSDE()
MIXTURE = Mixture([[-2.0, -1.5], [2.0, 1.0], [0.0, 2.0]], [0.2, 0.3, 0.15], [0.3, 0.4, 0.3])


def exact(x: Tensor, t: Tensor) -> Tensor:
    """The mixture's mean and E[(eps - eps_hat)^2 | x_t]."""
    level = VP(t)
    return torch.cat([MIXTURE.denoise(x, level), MIXTURE.variance(x, level) / rho2(level)], 1)


def rho2(level: Any) -> Tensor:
    return (level.rho**2).reshape(-1, 1)


def bits(model: Any, x: Tensor, steps: int, variance: Any) -> float:
    """The terms' mean."""
    found = discrete_elbo(model, x, steps=steps, variance=variance, seed=0).diffusion
    return float(found.mean()) / (x[0].numel() * math.log(2))


@torch.no_grad()
def fixed(model: Any, fit: Tensor, x: Tensor, steps: int, given: Any = None) -> dict[str, float]:
    """The bound with E (x0 - x0_hat)^2 of each step fitted: one number, and one a pixel."""
    sde, draws = model.sde, torch.Generator().manual_seed(0)
    stops = sg.walks.log_snr(sde, steps)
    total = {"best scalar": 0.0, "best per coordinate": 0.0}
    for a, b in pairwise(stops):
        t, s = sde(a), sde(b)
        fresh, _, w = parts(t, s, 1.0)
        hats = []
        for k, data in enumerate((fit, x)):
            z = torch.randn(data.shape, generator=draws, dtype=data.dtype)
            own = model if given is None else model.given(y=given[k])
            hats.append(own(sde.mix(data, t, z), t).x0)
        off = (hats[0] - fit).double().square()
        for name, V in (("best scalar", off.mean()), ("best per coordinate", off.mean(0))):
            log_v = (s.sigma**2 * fresh + w**2 * V).log().expand_as(x)
            each = kl(hats[1].double(), log_v, x.double(), t, s)
            total[name] += float(each.mean()) / math.log(2)
    return total


def mixture(quick: bool) -> dict[str, Any]:
    """The table of the plane."""
    steps, n = (20, 50) if quick else (3000, 4000)
    data = MIXTURE.sample(50_000, torch.Generator().manual_seed(1))
    x = MIXTURE.sample(n, torch.Generator().manual_seed(2))
    mean = sg.ScoreModel(lambda y, t: MIXTURE.denoise(y, VP(t)), VP, "x0", time="t")
    best = sg.ScoreModel(exact, VP, "x0", time="t", heads=2)
    torch.manual_seed(0)
    begun = time.perf_counter()
    net = MLP(2, width=64)
    head = fit_head(mean, Residual(), data.float(), steps, net=net, batch_size=512)
    found: dict[str, Any] = {"seconds of training": time.perf_counter() - begun}
    for count in (10, 25, 50):
        row = {name: bits(best, x, count, name) for name in ("small", "large")}
        row |= fixed(best, data[: 5 * n], x, count)
        row["best of each state"] = bits(best, x, count, Residual())
        row["trained head"] = bits(head, x, count, Residual())
        found[str(count)] = row
    return found


def digits(run: Path, head: Path | None, weights: str, n: int) -> dict[str, Any]:
    """The table of a run on held-out digits, with that of a head that was trained on it."""
    from sdegen.data import digits as data_of

    train, test = data_of("train"), data_of("test")
    fit, x = train.x[:n], test.x[:n]
    model = sg.load(run)
    found: dict[str, Any] = {}
    two = None if head is None else sg.load(head, weights=weights).given(y=test.y[:n])
    for count in (10, 25):
        known = model.given(y=test.y[:n])
        row = {name: bits(known, x, count, name) for name in ("small", "large")}
        row |= fixed(model, fit, x, count, (train.y[:n], test.y[:n]))
        if two is not None:
            row["trained head"] = bits(two, x, count, Residual())
        found[str(count)] = row
    return found


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path)
    parser.add_argument("--head", type=Path)
    parser.add_argument("--weights", default="finished")
    parser.add_argument("--n", type=int, default=400)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=HERE)
    asked = parser.parse_args()
    path = asked.out / "variances.json"
    found = read_json(path) if path.is_file() else {}
    found |= {"torch": torch.__version__, "python": platform.python_version()}
    if asked.run is None:
        found["mixture"] = mixture(asked.quick)
    else:
        found["digits"] = digits(asked.run, asked.head, asked.weights, asked.n)
    write_json(path, found)
    for part in ("mixture", "digits"):
        for count, row in found.get(part, {}).items():
            print(part, count, row)


if __name__ == "__main__":
    main()
