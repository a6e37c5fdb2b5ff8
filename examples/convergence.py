"""How far samplers are from the data, and what theory says of it: on Gaussians, without sampling.

Chen et al. (2023b): a sampler starts at the prior and not at p_T, its score is wrong, and its
steps are not small. Each costs KL at the end, and each has a bound.
"""

import argparse
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import sdegen as sg
from sdegen.exact import (
    Gaussian,
    affine,
    chain_of,
    end_of,
    exact_model,
    girsanov,
    marginal,
    path_kl,
    prior_of,
)
from sdegen.files import write_json
from sdegen.sde.level import expand

SDE = sg.VPSDE()
KEYS = "what", "value", "beside", "of", "wished"
SOLVERS = {"Euler-Maruyama": sg.EulerMaruyama(), "exponential": sg.DDIM(eta=1.0)}


def off(data: Gaussian, by: float) -> sg.ScoreModel:
    """The data's score, wrong by a constant."""

    def net(x: Tensor, t: Tensor) -> Tensor:
        level = SDE(t)
        return data.denoise(x, level) + expand(level.sigma**2 / level.alpha * by, x)

    return sg.ScoreModel(net, SDE, "x0")


def picture(path: Path, curves: dict[str, Any]) -> None:
    """KL and its bound by the number of steps."""
    from matplotlib.figure import Figure

    figure = Figure((6, 4), dpi=150, layout="constrained")
    axes = figure.subplots()
    for colour, (name, rows) in zip(("C0", "C1"), curves.items(), strict=True):
        n, kl, bound = zip(*rows, strict=True)
        axes.loglog(n, bound, "--", color=colour, label=f"{name}: bound, KL of paths")
        axes.loglog(n, kl, ".-", color=colour, label=f"{name}: KL of ends")
    axes.set(xlabel="steps", ylabel="nats")
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(path)


def main(folder: Path, most: int = 640) -> list[dict[str, Any]]:
    """The three bounds and both slopes on VP, and a corrector's contraction and bias."""
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[tuple[Any, ...]] = []

    def walk(n: int) -> sg.walks.Walk:
        return sg.walks.Walk(SDE, sg.walks.log_snr(SDE, n))

    for std in (0.5, 2.0):
        data, fine = Gaussian([0.0], [std**2]), walk(most)
        top, end = marginal(data, fine[0]), marginal(data, fine[-1])
        start = top.kl(prior_of(SDE, 1)) / float(fine[0].alpha) ** 4
        name, exact = f"start, KL / alpha_T^4, std {std:g}", (std**2 - 1) ** 2 / 4
        rows.append((name, start, exact, "(v - 1)^2 / 4", "equal"))
        chain = chain_of(sg.solvers.StochasticHeun(), off(data, 0.05), fine, 1)
        bound = girsanov(SDE, lambda level: (0.05 * level.sigma) ** 2)
        name = f"a score that is off by 0.05, std {std:g}"
        rows.append((name, end.kl(end_of(chain, top)), bound, "Girsanov", "below"))
    data, curves = Gaussian([0.3, -0.2], [0.25, 1e-2]), {}
    top, end = (marginal(data, level) for level in (fine[0], fine[-1]))
    for name, solver in SOLVERS.items():
        curve = []
        for n in (most >> k for k in reversed(range(5))):
            chain = chain_of(solver, exact_model(data, SDE), walk(n), 2)
            curve.append((n, end.kl(end_of(chain, top)), path_kl(chain, data, walk(n))))
        curves[name], (_, a, b), (_, c, d) = curve, *curve[-2:]
        rows += [
            (f"{name}: KL, {most} steps", c, d, "bound", "below"),
            (f"{name}: slope of KL", math.log2(a / c), math.log2(b / d), "the bound's", "2, 1"),
        ]
    at, data = SDE(0.3), Gaussian([0.0], [0.25])
    model, langevin, v = exact_model(data, SDE), sg.Langevin(0.3), float(marginal(data, at).var)
    step = affine(lambda x, noise: langevin.stay(sg.Reverse(model, 1.0, noise), x, at), 1)
    e, far = 2 * float(0.3 * at.sigma) ** 2, end_of([step] * 2000, prior_of(SDE, 1))
    gain2, var = float(step.gain) ** 2, float(far.var) / v
    rows += [
        ("corrector: contraction a step", gain2, (1 - e / v) ** 2, "(1 - e / v)^2", "equal"),
        ("corrector: variance in the end", var, 1 / (1 - e / 2 / v), "1 / (1 - e / 2 v)", "equal"),
    ]
    picture(folder / "picture.png", curves)
    figures = [dict(zip(KEYS, row, strict=True)) for row in rows]
    config = {"sde": str(SDE), "most": most, "curves": curves}
    write_json(folder / "result.json", {"config": config, "figures": figures})
    return figures


if __name__ == "__main__":
    parse = argparse.ArgumentParser(description=__doc__)
    parse.add_argument("folder", type=Path)
    parse.add_argument("--quick", action="store_true", help="few steps")
    given = parse.parse_args()
    torch.set_num_threads(1)
    print(*main(given.folder, **({"most": 32} if given.quick else {})), sep="\n")
