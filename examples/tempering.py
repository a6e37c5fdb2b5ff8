"""Denoising MCMC: far modes and their weights, from chains that all begin in one of them.

Kim & Ye (2022): chains over states and noise levels, Langevin at the level and a draw of the
level, then a solver from wherever each chain is. Beside it Langevin at the least noise, and a
solver that comes all the way from the prior.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import sdegen as sg
from sdegen.exact import Mixture, exact_model
from sdegen.files import write_json
from sdegen.metrics import sliced_wasserstein
from sdegen.sampling import Tempered, denoised, denoising_gibbs

LAW = Mixture([[-4.0, 0.0], [4.0, 0.0], [0.0, 5.0]], [0.3, 0.4, 0.3], [0.2, 0.5, 0.3])
SDE = sg.EDMSDE(T=20.0, t_min=0.02)
WALK = sg.walks.Walk(SDE, sg.walks.log_snr(SDE, 24))
KEYS = "what", "value", "beside", "of", "wished"


def weights(x: Tensor) -> list[float]:
    """Shares of the modes."""
    near = torch.cdist(x, torch.tensor(LAW.means, dtype=x.dtype)).argmin(1)
    return [round(float(v), 4) for v in torch.bincount(near, minlength=3) / len(x)]


def off(x: Tensor) -> float:
    """The worst of the shares' errors."""
    return max(abs(a - b) for a, b in zip(weights(x), LAW.weights, strict=True))


def picture(path: Path, shown: dict[str, Tensor]) -> None:
    """Samples of each way."""
    from matplotlib.figure import Figure

    figure = Figure((3 * len(shown), 3), dpi=150, layout="constrained")
    for axes, (name, x) in zip(figure.subplots(1, len(shown)), shown.items(), strict=True):
        axes.scatter(*x.T, s=1, alpha=0.4)
        axes.set(title=name, xlim=(-6, 6), ylim=(-3, 8), xticks=[], yticks=[])
    figure.savefig(path)


def main(folder: Path, n: int = 2000, sweeps: tuple[int, ...] = (10, 30, 100, 300)) -> list[Any]:
    """Weights and distances after so many sweeps."""
    folder.mkdir(parents=True, exist_ok=True)
    model, fresh = exact_model(LAW, SDE), LAW.sample(n, torch.Generator().manual_seed(1))
    floor = sliced_wasserstein(LAW.sample(n, torch.Generator().manual_seed(2)), fresh)
    start = torch.tensor([LAW.means[1]], dtype=torch.float64).expand(n, 2)
    begin = Tempered(start, torch.full((n,), WALK.steps))
    rows, shown, spent = [], {"data": fresh}, {}

    def told(name: str, x: Tensor, calls: float, wish: str) -> None:
        rows.append((f"{name}: worst error of a weight", off(x), 0.0, "exact", wish))
        rows.append((f"{name}: sliced W2", sliced_wasserstein(x, fresh), floor, "data's own", ""))
        spent[name] = {"calls": calls, "weights": weights(x)}

    for k in sweeps:
        chains = denoising_gibbs(model, begin, walk=WALK, log_prob=LAW.log_prob, sweeps=k, seed=k)
        x, calls = denoised(model, chains, WALK, solver=sg.DPMSolverPP(2))
        told(f"{k} sweeps", x, chains.nfe + calls, "below 0.03" if k == max(sweeps) else "")
    shown[f"{k} sweeps"] = x
    low = sg.walks.Walk(SDE, WALK.times[-2:])
    stuck = denoising_gibbs(model, start, walk=low, log_prob=LAW.log_prob, sweeps=max(sweeps))
    told("Langevin at the least noise", stuck.y, stuck.nfe, "stays in its mode")
    shown["Langevin"] = stuck.y
    x = sg.sample(model, (n, 2), solver=sg.DPMSolverPP(2), steps=24, seed=0).double()
    told("a solver from the prior", x, 24, "below 0.03")
    picture(folder / "picture.png", shown)
    figures = [dict(zip(KEYS, row, strict=True)) for row in rows]
    config = {"n": n, "truth": LAW.weights, "levels": len(WALK), "found": spent}
    write_json(folder / "result.json", {"config": config, "figures": figures})
    return figures


if __name__ == "__main__":
    parse = argparse.ArgumentParser(description=__doc__)
    parse.add_argument("folder", type=Path)
    parse.add_argument("--quick", action="store_true", help="few chains, few sweeps")
    given = parse.parse_args()
    print(*main(given.folder, *((200, (3,)) if given.quick else ())), sep="\n")
