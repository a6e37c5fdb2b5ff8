"""Slim diffusion: a student of a quarter of the width, and what it keeps of fine detail.

    python examples/slim.py outputs/slim [--quick]

Patches of two photographs, whose spectrum falls as a power of the frequency: fine detail is faint,
and a small network that learns what a large one says by the mean square learns it last. Learned by
a distance of spectra, and with gated wavelets between its levels, it is held against that; and
each of the two alone.  Yang et al. (2023).
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

import sdegen as sg
from sdegen.data import photo_patches
from sdegen.distill import Matching
from sdegen.files import write_json
from sdegen.losses import EDMWeighting, LogNormalTime, Spectral, low_discrepancy
from sdegen.metrics import radial_spectrum
from sdegen.networks import ADM
from sdegen.training import Trainer, TrainSettings

WIDTH, STEPS, SAMPLES, SEEDS = 32, 600, 1000, 3
DATA = photo_patches(size=8, stride=4)
SIGMA = float(DATA.x.std())
HOW = {
    "weighting": EDMWeighting(SIGMA),
    "times": LogNormalTime(-1.2, 1.2),
    "draw": low_discrepancy,
}
KINDS = {
    "plain": (None, False),
    "slim": (Spectral(), True),
    "by spectra alone": (Spectral(), False),
    "with wavelets alone": (None, True),
}


def model_of(width: int, wavelets: bool = False) -> sg.ScoreModel:
    """A score model of patches."""
    net = ADM(3, width, (1, 2), 1, attention=(1,), head_width=8, wavelets=wavelets)
    return sg.ScoreModel(net, sg.VPSDE(), "edm", sigma_data=SIGMA)


def trained(model: sg.ScoreModel, loss: Any, steps: int, lr: float, seed: int) -> sg.ScoreModel:
    """A model after some steps on patches, at rest."""
    settings = TrainSettings(
        steps=steps,
        batch_size=64,
        warmup=50,
        ema=0.995,
        seed=seed,
        device="cpu",
        schedule="cosine",
    )
    adam = partial(torch.optim.AdamW, lr=lr)
    with TemporaryDirectory() as folder:
        trainer = Trainer(model, DATA, loss, adam, settings, Path(folder))
        list(trainer.steps())
        found: sg.ScoreModel = trainer.averaged
    return found.eval()


def off(S: Tensor, beside: Tensor) -> float:
    """How far a spectrum is off in the top octave: the root mean square of log2 of its ratio."""
    rings = torch.arange(len(S)) > (len(S) - 1) / 2
    return float((S / beside)[rings].log2().square().mean().sqrt())


def picture(path: Path, spectra: dict[str, Tensor], S: Tensor) -> None:
    """Spectra beside that of the data."""
    from matplotlib.figure import Figure

    figure = Figure((6, 3.2), dpi=150, layout="constrained")
    axes = figure.subplots()
    for name, found in spectra.items():
        axes.plot((found / S).log2(), marker="o", label=name)
    axes.axhline(0, color="grey", linewidth=0.8)
    axes.set(xlabel="waves along a side", ylabel="log2 of power / data's", xticks=range(len(S)))
    axes.legend()
    figure.savefig(path)


def main(folder: str, quick: bool = False) -> dict[str, Any]:
    """A teacher, and students of both kinds; figures and a picture into the folder."""
    place, n = Path(folder), 20 if quick else SAMPLES
    steps = 2 if quick else STEPS
    place.mkdir(parents=True, exist_ok=True)
    width = 16 if quick else WIDTH
    torch.manual_seed(0)
    teacher = trained(model_of(width), partial(sg.dsm_loss, **HOW), steps, 2e-3, 0)
    data, held = radial_spectrum(DATA.x)[1], photo_patches("test", size=8, stride=8).x[:500]

    def spectrum(model: sg.ScoreModel) -> Tensor:
        return radial_spectrum(sg.sample(model, (n, 3, 8, 8), nfe=20, seed=7))[1]

    spectra, errors = {"teacher": spectrum(teacher)}, dict[str, list[tuple[float, float]]]()
    sizes = {"teacher": sum(w.numel() for w in teacher.parameters())}
    for seed in range(1 if quick else SEEDS):
        for name, (distance, wavelets) in KINDS.items():
            torch.manual_seed(seed)
            loss = Matching(teacher, distance=distance, **HOW)
            student = trained(model_of(width // 4, wavelets), loss, steps, 4e-3, seed)
            S = spectrum(student)
            spectra.setdefault(name, S)
            sizes[name] = sum(w.numel() for w in student.parameters())
            generator = torch.Generator().manual_seed(5)
            with torch.no_grad():
                apart = Matching(teacher, **HOW)(student, held, generator).mean()
            errors.setdefault(name, []).append((off(S, data), float(apart)))
            print(name, seed, errors[name][-1], S / data, flush=True)
    means = {k: [sum(part) / len(v) for part in zip(*v, strict=True)] for k, v in errors.items()}
    picture(place / "picture.png", spectra, data)
    what = "spectrum of samples in the top octave, off by octaves of power"
    told: list[tuple[Any, ...]] = [
        (f"{what}, teacher", off(spectra["teacher"], data), None, "", "")
    ]
    for k, name in enumerate((what, "mean square from the teacher")):
        for kind in [*KINDS][1:]:
            wished = "at most half of plain" if (k, kind) == (0, "slim") else ""
            told.append((f"{name}, {kind}", means[kind][k], means["plain"][k], "plain", wished))
    told.append(("weights", sizes["slim"], sizes["teacher"], "teacher", ""))
    names = ("what", "value", "beside", "of", "wished")
    figures = [dict(zip(names, each, strict=True)) for each in told]
    config: dict[str, Any] = {"steps": steps, "samples": n, "seeds": errors}
    config["widths"] = [width, width // 4]
    write_json(place / "result.json", {"config": config, "figures": figures})
    return {each["what"]: each["value"] for each in figures}


if __name__ == "__main__":
    print(main(sys.argv[1], "--quick" in sys.argv))
