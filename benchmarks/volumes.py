"""A volume from a part of its measurements, by a model of its slices: PSNR and a picture.

    python benchmarks/volumes.py                      writes volumes.json and docs/volumes.png
    python benchmarks/volumes.py --quick --out DIR    a look, in seconds

The anatomical volume that comes with nibabel (pip install nibabel), 33 x 41 x 25 voxels of 2 mm,
cut to slices of 32 x 32. Slices 0 to 11 make the prior: Gaussian slices of their mean and their
mean spectrum, whose denoiser is exact. Slices 13 to 24 are the volume that is measured, by a third
of each slice's frequencies or by 12 projections of each, with noise. Sampled together, 10 steps of
DPM-Solver++(2M); the posterior's mean is one call at T; TV is across slices. Beside it the
pseudo-inverse, and TV alone from there. The weights of TV are those that are best for slices 0 to
11.
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
from sdegen.exact import Gaussian
from sdegen.files import write_json
from sdegen.guidance import TV, Fourier, Operator, Radon, Refined, Sliced, ddnm, jfps

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


def prior_of(x: Tensor) -> tuple[sg.ScoreModel, Tensor]:
    """The exact model of Gaussian slices with the mean and the mean spectrum of slices x
    (n, 1, 32, 32), that is their covariance over all shifts; and that, (1024, 1024)."""
    mean = x.double().mean()
    power = torch.fft.fft2(x.double() - mean).abs().square().mean((0, 1)) / N**2
    row = torch.fft.ifft2(power).real  # of a pixel with every other
    i = torch.arange(N)
    shift = (i[:, None] - i) % N
    P = row[shift[:, None, :, None], shift[None, :, None, :]].reshape(N * N, N * N)
    prior = Gaussian(mean.expand(N * N), P)

    def net(x: Tensor, t: Tensor) -> Tensor:
        return prior.denoise(x.flatten(1), SDE(t)).reshape(x.shape)

    return sg.ScoreModel(net, SDE, "x0"), P


def operators() -> dict[str, Operator]:
    """A third of the frequencies, the low ones all; 12 projections."""
    k = torch.fft.fftfreq(N).abs()
    generator = torch.Generator().manual_seed(0)
    mask = (k[:, None] < 0.1) & (k < 0.1)
    mask = mask | (torch.rand(N, N, generator=generator) < 0.28)
    return {
        "Fourier": Fourier(mask),
        "Radon": Radon(tuple(15.0 * i for i in range(12)), iterations=30),
    }


def psnr(x: Tensor, truth: Tensor) -> float:
    """In dB, of values in [-1, 1]."""
    return round(float(10 * torch.log10(4 / (x - truth).square().mean())), 2)


@dataclass(frozen=True, eq=False)
class Scan:
    """What is known of a volume: y (1, 1, d, *) = A x + std z."""

    A: Operator
    y: Tensor
    std: float
    model: sg.ScoreModel
    P: Tensor
    steps: int

    def alone(self, weight: float) -> tuple[Tensor, int]:
        """Total variation from the pseudo-inverse; no evaluation."""
        tv = TV(self.A, self.y, weight, 2, gamma=10.0, rho=3.0, iterations=20, steps=5)
        return tv(self.A.pinv(self.y)), 0

    def seen(self, kind: str, weight: float) -> Any:
        """The model of volumes. Slices are measured one by one, so that what is seen stands
        inside, each slice's own; TV around."""
        y, A = self.y.transpose(1, 2).flatten(0, 1), self.A
        if kind == "ddnm":
            slices = ddnm(self.model, y, A)
        else:
            slices = jfps(self.model, y, A, self.std, self.P, iterations=100)
        model = Sliced(slices, 2, self.y.shape[2])
        across = TV(None, None, weight, 2, iterations=20, steps=5)
        return Refined(model, across) if weight else model

    def mean(self, weight: float = 0.0) -> tuple[Tensor, int]:
        """E[x0 | y], what is said at T, where x_t says nothing: one call."""
        model = self.seen("jfps", weight)
        x = torch.zeros(1, 1, self.y.shape[2], N, N)
        before = model.nfe
        return model(x, SDE.T).x0, model.nfe - before

    def drawn(self, kind: str, weight: float = 0.0) -> tuple[Tensor, int]:
        """A sample, and its evaluations."""
        model = self.seen(kind, weight)
        how: dict[str, Any] = {"solver": sg.DPMSolverPP(2), "steps": self.steps, "seed": 0}
        done = sg.solve(model, (1, 1, self.y.shape[2], N, N), **how)
        return done.x, int(done.nfe.max())


Way = Callable[[Scan, float], tuple[Tensor, int]]


@torch.no_grad()
def reconstructed(scan: Scan, known: Scan, truth: Tensor) -> dict[str, tuple[Tensor, int]]:
    """Every way back, with the weights of TV that are best where the truth is known."""

    def best(way: Way, weights: tuple[float, ...]) -> float:
        return max(weights, key=lambda w: psnr(way(known, w)[0], truth))

    joined = best(Scan.mean, (0.003, 0.01, 0.03, 0.1))
    return {
        "pseudo-inverse": (scan.A.pinv(scan.y), 0),
        "TV alone": scan.alone(best(Scan.alone, (0.03, 0.1, 0.3, 1.0))),
        "DDNM": scan.drawn("ddnm"),
        "posterior sample": scan.drawn("jfps"),
        "sample, TV across": scan.drawn("jfps", joined),
        "posterior mean": scan.mean(),
        "mean, TV across": scan.mean(joined),
    }


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
    """Reconstruct, write and draw."""
    parse = argparse.ArgumentParser(description=__doc__)
    parse.add_argument("--quick", action="store_true")
    parse.add_argument("--out", type=Path, help="a folder for both files")
    args = parse.parse_args()
    torch.set_num_threads(1)
    x = volume()
    half, rest = x[:12], x[13:]
    model, P = prior_of(half)
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
    steps = 2 if args.quick else 10
    generator = torch.Generator().manual_seed(1)
    for kind, A in operators().items():
        std = 0.05 if kind == "Fourier" else 0.2

        def scan(x: Tensor, A: Operator = A, std: float = std) -> Scan:
            y = A(x)
            y = y + std * torch.randn(y.shape, generator=generator)
            return Scan(A, y, std, model, P, steps)

        found = reconstructed(scan(truth), scan(known), known)
        record["rows"][kind] = {
            name: {"psnr": psnr(each, truth), "nfe": nfe} for name, (each, nfe) in found.items()
        }
        pictures[kind] = {"truth": truth, **{name: each for name, (each, _) in found.items()}}
        for name, told in record["rows"][kind].items():
            print(f"{kind:8s} {name:20s} {told}", flush=True)
    folder = args.out or HERE
    write_json(folder / "volumes.json", record)
    drawn(pictures, (args.out or HERE.parent / "docs") / "volumes.png")


if __name__ == "__main__":
    main()
