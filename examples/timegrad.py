"""TimeGrad: forecasts drawn step by step, each under what a recurrent network has seen.  Rasul et
al. (2021).

    python examples/timegrad.py outputs/timegrad [--quick]

    h_k = GRU(h_{k-1}, x_{k-1}),   x_k ~ p(x_k | h_k), a diffusion whose network is told h_k

Trained on a vector autoregression, whose forecasts have a normal law in closed form, and on hours
of electricity in Italy, beside the normal law with the training days' moments, conditioned.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import sdegen as sg
from sdegen.data import series
from sdegen.exact import Gaussian, autoregression, following
from sdegen.files import write_json
from sdegen.losses import EDMWeighting, LogNormalTime, low_discrepancy
from sdegen.metrics import covered, crps
from sdegen.networks import MLP
from sdegen.plots import save_samples
from sdegen.training import Trainer, TrainSettings

PATHS = 100


class Told(nn.Module):
    """A network of states (b, d) that is told h (b, width)."""

    def __init__(self, d: int, width: int) -> None:
        super().__init__()
        self.mlp = MLP(d + width, 64, 3, out=d)

    def forward(self, x: Tensor, t: Tensor, h: Tensor) -> Tensor:
        return self.mlp(torch.cat([x, h], 1), t)


class TimeGrad(nn.Module):
    """A recurrent network and a diffusion, of series (b, d, length) of about unit variance."""

    def __init__(self, d: int, width: int = 32) -> None:
        super().__init__()
        self.rnn = nn.GRU(d + 1, width, batch_first=True)
        self.score = sg.ScoreModel(Told(d, width), sg.EDMSDE(T=20.0), "edm", sigma_data=1.0)

    def seen(self, x: Tensor, h: Tensor | None = None, first: int = 0) -> tuple[Tensor, Tensor]:
        """States (b, k, width) after each of the values x (b, k, d), which begin at a time."""
        clock = torch.arange(first, first + x.shape[1]).expand(x.shape[:2])[..., None] / 24
        return self.rnn(torch.cat([x, clock], 2), h)

    def loss(self, x: Tensor) -> Tensor:
        """Of each series, (b,): all values under those before them."""
        x = x.movedim(1, 2)
        h = self.seen(x[:, :-1])[0].flatten(0, 1)
        dsm = partial(sg.dsm_loss, weighting=EDMWeighting(1.0), times=LogNormalTime(-0.6),
                      draw=low_discrepancy)  # fmt: skip
        return dsm(self.score.given(h=h), x[:, 1:].flatten(0, 1)).reshape(len(x), -1).mean(1)

    @torch.no_grad()
    def forecast(self, x: Tensor, steps: int, paths: int = PATHS) -> Tensor:
        """Paths (paths, b, d, steps) of what follows series (b, d, k), all in one batch."""
        b, d, k = x.shape
        seen, h = self.seen(x.movedim(1, 2))
        told, h = seen[:, -1].repeat(paths, 1), h.repeat(1, paths, 1)
        found = []
        for i in range(steps):
            new = sg.sample(self.score.given(h=told), (paths * b, d), nfe=14, seed=i)
            found.append(new.reshape(paths, b, d))
            seen, h = self.seen(new[:, None], h, k + i)
            told = seen[:, -1]
        return torch.stack(found, 3)


def trained(model: TimeGrad, x: Tensor, folder: Path, steps: int) -> TimeGrad:
    """The model after training on series x (n, d, length), with averaged weights."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = TrainSettings(steps, 64, warmup=steps // 20, schedule="cosine", ema=0.995,
                             device="cpu", log_every=steps, save_every=steps)  # fmt: skip
    rate = partial(torch.optim.AdamW, lr=3e-3)
    trainer = Trainer(model, [(one,) for one in x], TimeGrad.loss, rate, settings, folder)
    for record in trainer.steps():
        print(f"{folder.name}: step {record.step}, loss {record.loss:.4f}", flush=True)
    return trainer.averaged


def judged(name: str, made: Tensor, y: Tensor, beside: float, of: str, wished: str) -> list[Any]:
    """Rows of the gallery: a forecast's score, and how often its band holds what came."""
    score, held = float(crps(made, y).mean()), float(covered(made, y).double().mean())
    print(f"{name}: CRPS {score:.4f}, {of} {beside:.4f}; band of 95 % holds {held:.3f}")
    return [
        {"what": f"{name}: CRPS", "value": score, "beside": beside, "of": of, "wished": wished},
        {"what": f"{name}: share that a band of 95 % holds", "value": held, "beside": 0.95,
         "of": "exact", "wished": "0.93 to 0.97" if wished else ""},
    ]  # fmt: skip


def normal_crps(law: Gaussian, before: Tensor, y: Tensor) -> float:
    """The mean score of what a law of whole series says of what follows (b, d, m)."""
    from scoringrules import crps_normal

    mean, cov = following(law, before)
    std = cov.diagonal().clamp(min=1e-12).sqrt().reshape(mean.shape[1:]).expand_as(mean)
    return float(crps_normal(y.double(), mean, std, backend="torch").mean())


def main(folder: str, quick: bool = False, seed: int = 0) -> dict[str, Any]:
    """Train on both, forecast the last 12 of 24 values, score."""
    torch.manual_seed(seed)
    n, steps, count = (64, 10, 4) if quick else (8000, 2500, 150)
    Phi, Q = [[0.7, 0.3], [-0.3, 0.6]], [[0.36, 0.15], [0.15, 0.365]]
    law = autoregression(torch.tensor(Phi), torch.tensor(Q), 24)
    x = law.sample(n + count, torch.Generator().manual_seed(0)).reshape(-1, 2, 24).float()
    model = trained(TimeGrad(2), x[count:], Path(folder, "autoregression"), steps)
    before, y = x[:count, :, :12], x[:count, :, 12:]
    exact = normal_crps(law, before, y)
    figures = judged("autoregression", model.forecast(before, 12), y, exact, "of the exact law",
                     "at most 5 % above")  # fmt: skip
    days = series("italy_power_demand").x
    days = days[torch.randperm(len(days), generator=torch.Generator().manual_seed(0))]
    days, test = days[2 * count :], days[: 2 * count]
    model = trained(TimeGrad(1), days, Path(folder, "electricity"), steps // 2)
    before, y = test[..., :12], test[..., 12:]
    normal = Gaussian(days[:, 0].double().mean(0), days[:, 0].double().T.cov())
    other, of = normal_crps(normal, before, y), "of a normal law, conditioned"
    made = model.forecast(before, 12)
    figures += judged("electricity", made, y, other, of, "")
    any_day = days[:PATHS, None, :, 12:].expand(-1, len(y), -1, -1)
    figures += judged("electricity, any days of the training", any_day, y, other, of, "")
    lines = torch.cat(
        [test[:6], torch.cat([before[:6].expand(-1, 8, -1), made[:8, :6, 0].movedim(0, 1)], 2)], 1
    )
    save_samples(lines.flip(1), f"{folder}/picture.png", "eight forecasts each, and what came")
    config = {"steps": steps, "paths": PATHS, "forecasts": count, "seed": seed}
    write_json(Path(folder) / "result.json", {"config": config, "figures": figures})
    return {"config": config, "figures": figures}


if __name__ == "__main__":
    main(sys.argv[1], "--quick" in sys.argv)
