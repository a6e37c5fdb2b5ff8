"""A planner on a linear system, beside the law that its plans should have.

    python examples/linear_plans.py outputs/linear_plans [--quick]

Where a system is linear and its noise normal, plans, first states and a return that is linear in
them are jointly Gaussian, so that plans under a first state, or that and a return, have a law in
closed form: N(m + K (y - A m), (I - K A) S). The planner is that of decision_diffuser.py.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from decision_diffuser import drawn, planner
from torch import Tensor

import sdegen as sg
from sdegen.exact import Gaussian, exact_model, posterior
from sdegen.files import write_json
from sdegen.guidance import Known, mmps
from sdegen.metrics import frechet_distance
from sdegen.networks import UNet
from sdegen.plots import save_samples

HORIZON, RETURN, FIRST = 8, 1.5, 0.7


def system(n: int = HORIZON) -> tuple[Gaussian, Tensor]:
    """The law of plans (p, then v, at n times) of v' = 0.9 v - 0.2 p + 0.4 w, p' = p + v', and
    the weights (2 n,) of their return in it: the mean place."""
    z = torch.eye(n + 1, dtype=torch.float64)  # two of the first state, and a push each time
    p, v = [z[0]], [0.5 * z[1]]
    for k in range(1, n):
        v.append(0.9 * v[-1] - 0.2 * p[-1] + 0.4 * z[k + 1])
        p.append(p[-1] + v[-1])
    root = torch.stack([*p, *v])
    weights = torch.cat([torch.full((n,), 1 / n), torch.zeros(n)]).double()
    return Gaussian(torch.zeros(2 * n), root @ root.T), weights


def law_of(law: Gaussian, weights: Tensor, both: bool) -> Gaussian:
    """Of plans whose first state is (FIRST, FIRST), and whose return is RETURN if ``both``."""
    seen = torch.eye(2 * HORIZON, dtype=torch.float64)[[0, HORIZON]]
    y = torch.tensor([FIRST, FIRST, RETURN])
    A = torch.cat([seen, weights[None]])
    return posterior(law, A, y, 0.0) if both else posterior(law, seen, y[:2], 0.0)


def untold(law: Gaussian, n: int) -> dict[str, Tensor]:
    """Plans (n, 2 HORIZON) under a first state that an exact score is not told: it is held alone,
    on a walk that climbs back, or observed by products with the score's Jacobian."""
    sde = sg.EDMSDE(T=10.0)
    model, even = exact_model(law, sde), sg.walks.karras(sde, 40, stop=0.01)
    first = torch.zeros(2 * HORIZON, dtype=torch.bool)
    first[[0, HORIZON]] = True
    held = Known(model, torch.full((1, 2 * HORIZON), FIRST), first)
    seen = mmps(model, torch.full((n, 2), FIRST), lambda x: x[:, first], 0.02)
    ways = {
        "held": (held, sg.walks.ancestral(sde, even)),
        "held, RePaint": (held, sg.walks.repaint(sde, even, 4, 10)),
        "observed by mmps": (seen, sg.walks.ancestral(sde, even)),
    }
    start = sde.prior.sample(torch.randn(n, 2 * HORIZON))
    how = {"solver": sg.DDIM(), "denoise": True, "seed": 0}
    return {name: sg.sample(m, start, walk=w, **how) for name, (m, w) in ways.items()}


def main(folder: str, quick: bool = False) -> dict[str, Any]:
    """Train, draw, compare."""
    steps, n = (20, 50) if quick else (1200, 4000)
    law, weights = system()
    x = law.sample(200 if quick else 50_000, torch.Generator().manual_seed(0))
    known = torch.zeros(2, HORIZON, dtype=torch.bool)
    known[:, 0] = True
    net = UNet(2, 32, (1, 2), attention=(), numbers=["returns"], beside=2, dims=1)
    plans = x.unflatten(1, (2, HORIZON)).float()
    model = planner(net, plans, (x @ weights).float(), known, Path(folder), steps)
    y = torch.full((n, 2, HORIZON), FIRST)
    figures, shown = [], []
    exact = law_of(law, weights, both=False)
    size, one = float(exact.spectrum[1].sum()), exact.sample(n, torch.Generator().manual_seed(1))
    for name, made in untold(law, n).items():
        figures.append({
            "what": f"exact score, first state {name}: squared W2 in parts of the variance",
            "value": frechet_distance(made, one) / size, "beside": None, "of": "", "wished": "",
        })  # fmt: skip
    for both in (False, True):
        exact = law_of(law, weights, both)
        made = drawn(model, RETURN, y, known, float(both), 1.0).flatten(1)
        one, two = (exact.sample(n, torch.Generator().manual_seed(k)) for k in (1, 2))
        size = float(exact.spectrum[1].sum())
        name = "a first state and a return" if both else "a first state"
        figures.append({
            "what": f"plans under {name}: squared W2, in parts of the law's variance",
            "value": frechet_distance(made, one) / size,
            "beside": frechet_distance(two, one) / size,
            "of": f"{n} exact samples",
            "wished": "",
        })  # fmt: skip
        off = (made.double().mean(0) - exact.spectrum[0]).norm() / size**0.5
        figures.append({
            "what": f"plans under {name}: their mean off, in standard deviations",
            "value": float(off), "beside": n**-0.5, "of": "exact samples", "wished": "",
        })  # fmt: skip
        shown += [made[:3].unflatten(1, (2, HORIZON)), one[:3].unflatten(1, (2, HORIZON)).float()]
    save_samples(torch.cat(shown), f"{folder}/picture.png", "drawn, exact; under a return too")
    result = {"config": {"steps": steps, "n": n, "horizon": HORIZON}, "figures": figures}
    write_json(Path(folder) / "result.json", result)
    return result


if __name__ == "__main__":
    main(sys.argv[1], "--quick" in sys.argv)
