"""Video diffusion on clips of moving digits.  Ho et al. (2022b).

    python examples/moving_digits.py outputs/moving_digits [outputs/video/moving_digits]

Takes a run of ``sdegen-train experiment=video/moving_digits``, which it trains where there is
none, and measures what its frames know of each other: how far the centroids of samples are from
going straight on, beside those of data and of frames that know nothing; and clips of which the
first half is known, by replacement, by reconstruction guidance and by Bayes' rule. How far these
are from the exact law is measured where it is known, on clips that are an autoregression.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import sdegen as sg
from sdegen.data import moving_digits
from sdegen.exact import Gaussian, posterior
from sdegen.files import write_json
from sdegen.guidance import Known, dps, mmps, pigdm
from sdegen.losses import Extend, with_images
from sdegen.metrics import acceleration, centroids
from sdegen.plots import save_samples
from sdegen.runs.folder import load_run

TINY = ["train.steps=2", "train.batch_size=4", "data.train.n=40", "data.test.n=20",
        "evaluate.budgets=[2]"]  # fmt: skip
STD = 0.05
"""Of the noise in what is known, where a method needs some."""


def extended(model: Any, x0: Tensor, known: int) -> dict[str, Any]:
    """Models that are told the first frames, by what they do with them."""
    hole = Extend(known)(x0).hole
    A = Extend(known).operator(x0, hole)

    def weight(level: sg.Level) -> Tensor:  # of x0 - w alpha / 2 grad |y - A x0|^2, w = 2
        return 2.0 * level.alpha**2 / level.sigma**2

    guided = dps(model, A(x0), A, 1.0, scale=weight)
    return {
        "replacement": Known(model, x0, ~hole),
        "reconstruction guidance": Known(guided, x0, ~hole),
        "PiGDM": pigdm(model, A(x0), A, STD),
        "MMPS": mmps(model, A(x0), A, STD, iterations=1),
    }


def sampled(model: Any, x: Any, nfe: int, seed: int = 0) -> Tensor:
    """Samples from noise to data; x: their shape, or the noise."""
    how = {"solver": sg.DPMSolverPP(2), "steps": nfe, "denoise": True}
    return sg.sample(model, x, **how, **({} if isinstance(x, Tensor) else {"seed": seed}))


def errors_of_means(frames: int = 6, phi: float = 0.9, known: int = 3) -> dict[str, float]:
    """How far the means of what follows are off, of x_k = phi x_{k-1} + noise, in units of a
    frame's deviation. Every map is affine, so that starts of mean 0 give the mean."""
    at = torch.arange(frames, dtype=torch.float64)
    prior = Gaussian(0 * at, phi ** (at[:, None] - at).abs())
    seen = torch.tensor([[0.4, 1.0, 1.6, 0.0, 0.0, 0.0]], dtype=torch.float64)
    A = torch.eye(frames, dtype=torch.float64)[:known]
    mean, _, _ = posterior(prior, A, (seen @ A.T)[0], 0.0).spectrum
    sde = sg.VPSDE()

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        return prior.denoise(x.flatten(1), sde(t)).reshape(x.shape)

    model, x0 = sg.ScoreModel(denoise, sde, "x0"), seen.reshape(1, 1, frames, 1, 1)
    z = torch.zeros(1, 1, frames, 1, 1, dtype=torch.float64)
    told = extended(model, x0, known)
    told["MMPS"] = mmps(model, told["MMPS"].y, told["MMPS"].A, STD, iterations=frames)
    found = {name: sampled(each, z, 200).flatten() for name, each in told.items()}
    return {name: float((x - mean)[known:].abs().max()) for name, x in found.items()}


def seconds_of_steps(model: Any, x: Tensor, steps: int = 600, tried: int = 4) -> float:
    """Of the processor, for so many steps of training on batches x."""
    begin = time.process_time()
    for _ in range(tried):
        with_images(model, x, images=1).mean().backward()
    return (time.process_time() - begin) / tried * steps


def main(folder: str, run: str = "outputs/video/moving_digits", quick: bool = False) -> Any:
    """Sample, measure, and write result.json and picture.png into a folder."""
    place = Path(folder) / "run" if quick else Path(run)
    if not (place / "model.safetensors").is_file():
        words = ["sdegen-train", "experiment=video/moving_digits", f"hydra.run.dir={place}"]
        command = [str(Path(sys.executable).parent / words[0]), *words[1:], "device=cpu"]
        subprocess.run([*command, *(TINY if quick else [])], check=True)
    model = load_run(place, [], "cpu").model.eval()
    n, nfe, known = (4, 2, 4) if quick else (64, 30, 4)
    data, figures = moving_digits("test").x, list[dict[str, Any]]()

    def figure(what: str, value: float, beside: float | None, of: str, wished: str = "") -> None:
        each = {"what": what, "value": value, "beside": beside, "of": of, "wished": wished}
        figures.append(each)

    mixed = data.transpose(1, 2).flatten(0, 1)[torch.randperm(8 * len(data))]
    apart = acceleration(mixed.unflatten(0, (-1, 8)).transpose(1, 2))
    real, what = acceleration(data), "second difference of centroids, pixels"
    seeds = [sampled(model, (n, 1, 8, 16, 16), nfe, seed) for seed in range(2)]
    for seed, x in enumerate(seeds):
        figure(f"{what}, samples of seed {seed}", acceleration(x), real, "data", "<= 2 x data's")
    worst = max(acceleration(x) for x in seeds)
    figure("the same of frames of different clips", apart, worst, "samples", ">= 5 x samples'")
    longer = acceleration(sampled(model, (n, 1, 12, 16, 16), nfe))
    figure(f"{what}, clips of 12 frames", longer, acceleration(moving_digits(frames=12).x), "data")
    x0, rows = data[:n], [data[:3], seeds[0][:3]]
    for name, told in extended(model, x0, known).items():
        x = sampled(told, x0.shape, nfe)
        fine = (x.isfinite() & (x > -1).any(-1, True).any(-2, True)).flatten(1).all(1)
        if not fine.all():
            figure(f"share of clips that are lost, {name}", float((~fine).float().mean()), 0.0, "")
        off = (centroids(x[fine]) - centroids(x0[fine]))[:, known].norm(dim=1).mean()
        still = (centroids(x0)[:, known] - centroids(x0)[:, known - 1]).norm(dim=1).mean()
        figure(f"next frame's centroid is off by, {name}", float(off), float(still), "no motion")
        rows.append(x[:2])
    for name, error in errors_of_means().items():
        figure(f"means of an autoregression are off by, {name}", error, 0.0, "exact")
    seconds = seconds_of_steps(model, data[:16])
    figure("seconds of one core, 600 steps", seconds, None, "", "<= 300")
    shown = torch.cat(rows).transpose(1, 2).flatten(0, 1)
    title = "Data, samples; four frames known, by " + ", ".join(extended(model, x0, known))
    save_samples(shown, Path(folder) / "picture.png", title, columns=8)
    config = {"n": n, "nfe": nfe, "known": known, "std": STD, "run": run}
    write_json(Path(folder) / "result.json", {"config": config, "figures": figures})
    return figures


if __name__ == "__main__":
    words = [word for word in sys.argv[1:] if word != "--quick"]
    for each in main(*words, quick="--quick" in sys.argv):
        print(f"{each['what']:70s} {each['value']:.4g}")
