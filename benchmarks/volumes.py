"""A volume from a part of its measurements, by a model of its slices: PSNR and a picture.

    python benchmarks/volumes.py                      writes volumes.json and docs/volumes.png
    python benchmarks/volumes.py --quick --out DIR    a look, in seconds

The anatomical volume that comes with nibabel (pip install nibabel), 33 x 41 x 25 voxels of 2 mm,
cut to slices of 32 x 32. A small U-Net learns slices 0 to 11, flipped and shifted; slices 13 to 24
are the volume that is measured, by a third of each slice's frequencies or by 12 projections of
each, with noise. Slices are sampled together, 20 steps of DPM-Solver++(2M); TV is across slices.
Beside it the pseudo-inverse, and TV alone from there with the weight that is best for the slices
that were learned from.
"""

from __future__ import annotations

import argparse
import platform
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import sdegen as sg
from sdegen.files import write_json
from sdegen.guidance import TV, Fourier, Operator, Radon, Refined, Sliced, ddnm, pigdm
from sdegen.networks import UNet

HERE = Path(__file__).parent
N, SDE = 32, sg.EDMSDE()


def volume() -> Tensor:
    """Slices (25, 1, 32, 32) in [-1, 1]; ValueError without nibabel."""
    try:
        import nibabel
    except ImportError:
        raise ValueError("The volume comes with nibabel: pip install nibabel.") from None
    import numpy as np

    path = Path(nibabel.__file__).parent / "tests" / "data" / "anatomical.nii"
    values = np.asarray(nibabel.load(path).dataobj, dtype=np.float32)  # big-endian integers
    x = torch.from_numpy(values[:N, 4 : 4 + N].copy()).permute(2, 0, 1).unsqueeze(1)
    low, high = x.quantile(0.001), x.quantile(0.999)
    return (2 * (x - low) / (high - low) - 1).clamp(-1, 1)


def trained(x: Tensor, steps: int) -> sg.ScoreModel:
    """A model of slices like x (n, 1, 32, 32), their mirror images, and shifts by up to 2."""
    torch.manual_seed(0)
    net = UNet(channels=1, width=16)
    model = sg.ScoreModel(net, SDE, "edm", data_range=(-1, 1))
    rates = torch.optim.Adam(net.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(rates, steps)
    for k in range(steps):
        batch = x[torch.randint(len(x), (16,))]
        batch = batch.flip(2) if k % 2 else batch
        shift = [int(s) for s in torch.randint(-2, 3, (2,))]
        loss = sg.dsm_loss(model, batch.roll(shift, (2, 3))).mean()
        rates.zero_grad()
        loss.backward()
        rates.step()
        schedule.step()
    return model.requires_grad_(False).eval()


def operators() -> dict[str, Operator]:
    """A third of the frequencies, the low ones all; 12 projections."""
    k = torch.fft.fftfreq(N).abs()
    generator = torch.Generator().manual_seed(0)
    mask = (k[:, None] < 0.1) & (k < 0.1)
    mask = mask | (torch.rand(N, N, generator=generator) < 0.28)
    return {
        "Fourier": Fourier(mask),
        "Radon": Radon(tuple(15.0 * i for i in range(12)), iterations=60),
    }


def psnr(x: Tensor, truth: Tensor) -> float:
    """In dB, of values in [-1, 1]."""
    return round(float(10 * torch.log10(4 / (x - truth).square().mean())), 2)


@torch.no_grad()
def reconstructed(
    A: Operator, truth: Tensor, known: Tensor, model: sg.ScoreModel, std: float, steps: int
) -> dict[str, tuple[Tensor, int, int]]:
    """Every way from A truth + noise (1, 1, d, 32, 32) back: the volume, evaluations, products."""
    depth = truth.shape[2]
    generator = torch.Generator().manual_seed(1)

    def seen(x: Tensor) -> Tensor:
        y = A(x)
        return y + std * torch.randn(y.shape, generator=generator)

    y, other = seen(truth), seen(known)
    back = A.pinv(y)
    weights = (0.003, 0.01, 0.03, 0.1, 0.3)

    def smoothed(y: Tensor, start: Tensor, weight: float) -> Tensor:
        return TV(A, y, weight, 2, gamma=10.0, rho=3.0, iterations=40)(start)

    best = max(weights, key=lambda w: psnr(smoothed(other, A.pinv(other), w), known))
    sliced = Sliced(model, 2, depth)
    observed = pigdm(sliced, y, A, std, iterations=5)
    joined = TV(A, y, 0.01, 2, gamma=10.0, rho=1.0, iterations=5, steps=5)
    models = {
        "slices, DDNM": ddnm(sliced, y, A),
        "slices, PiGDM": observed,
        "slices, TV": Refined(sliced, joined),
        "slices, PiGDM, TV": Refined(observed, TV(None, None, 0.01, 2, rho=1.0)),
    }
    found = {"pseudo-inverse": (back, 0, 0), "TV alone": (smoothed(y, back, best), 0, 0)}
    for name, each in models.items():
        before = each.vjps
        done = sg.solve(each, truth.shape, solver=sg.DPMSolverPP(2), steps=steps, seed=0)
        found[name] = done.x, int(done.nfe.max()), each.vjps - before
    return found


def drawn(pictures: dict[str, dict[str, Tensor]], path: Path) -> None:
    """One slice of every reconstruction."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    wide = max(map(len, pictures.values()))
    figure, axes = pyplot.subplots(len(pictures), wide, figsize=(1.5 * wide, 1.8 * len(pictures)))
    for row, (kind, each) in zip(axes, pictures.items(), strict=True):
        for ax, (name, x) in zip(row, each.items(), strict=True):
            ax.imshow(x[0, 0, x.shape[2] // 2], cmap="gray", vmin=-1, vmax=1)
            ax.set_title(name, fontsize=7)
            ax.set_xticks([]), ax.set_yticks([])
        row[0].set_ylabel(kind, fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=80)
    pyplot.close(figure)


def main() -> None:
    """Train, reconstruct, write and draw."""
    parse = argparse.ArgumentParser(description=__doc__)
    parse.add_argument("--quick", action="store_true")
    parse.add_argument("--out", type=Path, help="a folder for both files")
    args = parse.parse_args()
    torch.set_num_threads(1)
    x = volume()
    half, rest = x[:12], x[13:]
    model = trained(half, 3 if args.quick else 1500)
    truth, known = (part.transpose(0, 1).unsqueeze(0) for part in (rest, half))
    record: dict[str, Any] = {
        "what": "PSNR in dB of slices 13 to 24 of nibabel's anatomical.nii, from sparse data",
        "on": "one thread of a 2-core x86-64 virtual machine",
        "torch": torch.__version__,
        "sdegen": sg.__version__,
        "python": platform.python_version(),
        "rows": {},
    }
    pictures: dict[str, dict[str, Tensor]] = {}
    for kind, A in operators().items():
        std = 0.05 if kind == "Fourier" else 0.2
        found = reconstructed(A, truth, known, model, std, 2 if args.quick else 20)
        record["rows"][kind] = {
            name: {"psnr": psnr(each, truth), "nfe": nfe, "vjps": vjps}
            for name, (each, nfe, vjps) in found.items()
        }
        pictures[kind] = {"truth": truth, **{name: each for name, (each, _, _) in found.items()}}
        for name, told in record["rows"][kind].items():
            print(f"{kind:8s} {name:20s} {told}", flush=True)
    folder = args.out or HERE
    write_json(folder / "volumes.json", record)
    drawn(pictures, (args.out or HERE.parent / "docs") / "volumes.png")


if __name__ == "__main__":
    main()
