"""Latent diffusion on patches of photographs: what comes back, and what it is worth.

    sdegen-train experiment=latents/autoencoder
    sdegen-train experiment=latents/autoencoder net=vq_autoencoder name=codes
    python benchmarks/latents.py outputs/latents/autoencoder outputs/codes    writes its JSON

PSNR of decoded means on held-out patches; the codes in use, exp of the entropy of their shares;
and two models of one U-Net and one loss, in the first autoencoder's latents and of the pixels,
each trained for as many seconds of this process's own CPU time and sampled from the same seeds:
the sliced Wasserstein distance of decoded samples to held-out patches, in the first 64 principal
axes of the training patches, and that of as many training patches, the floor.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import sdegen as sg
from sdegen.data import ArrayData, moments
from sdegen.files import read_header, write_json
from sdegen.latents import Latent, encoded, fit_scale
from sdegen.losses import EDMWeighting, LogNormalTime, low_discrepancy
from sdegen.metrics import sliced_wasserstein
from sdegen.networks import UNet
from sdegen.runs.autoencoding import measured
from sdegen.runs.build import build_data
from sdegen.runs.coders import Decoded, load_coder
from sdegen.runs.folder import WEIGHTS
from sdegen.training import Trainer, TrainSettings

HERE = Path(__file__).parent
AXES = 64


def trained(data: Any, seconds: float, width: int) -> tuple[Any, int]:
    """A model of data after so many seconds of CPU time, and its steps."""
    torch.manual_seed(0)
    sigma = moments(data).std
    net = UNet(channels=data.shape[0], width=width, mults=(1, 2), attention=(1,))
    model = sg.ScoreModel(
        net, sg.VPSDE(), "edm", time="c_noise", sigma_data=sigma, scale_input=True
    )
    loss = partial(
        sg.dsm_loss,
        weighting=EDMWeighting(sigma_data=sigma),
        times=LogNormalTime(-1.2, 1.2),
        draw=low_discrepancy,
    )
    settings = TrainSettings(
        steps=10**6,
        batch_size=64,
        warmup=30,
        ema=0.99,
        log_every=1,
        save_every=10**6,
        device="cpu",
    )
    make = partial(torch.optim.AdamW, lr=2e-3, weight_decay=0.0)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(model, data, loss, make, settings, Path(folder))
        begun = time.process_time()
        for _ in trainer.steps():
            if time.process_time() - begun > seconds:
                break
        return trainer.averaged, trainer.step


def samples(model: Any, shape: tuple[int, ...], n: int) -> Tensor:
    """Of a model by DPM-Solver++, 10 calls, from the seeds 0 to n - 1."""
    parts = [
        sg.sample(model, (100, *shape), solver=sg.DPMSolverPP(), nfe=10, noise=sg.Seeded(0, i))
        for i in range(0, n, 100)
    ]
    return torch.cat(parts)


def distance(x: Tensor, train: Tensor, test: Tensor) -> float:
    """Sliced W2 between samples and held-out patches in the training patches' first axes."""
    flat = train.flatten(1)
    mean = flat.mean(0)
    axes = torch.linalg.svd(flat - mean, full_matrices=False).Vh[:AXES].T
    here, there = ((each.flatten(1) - mean) @ axes for each in (x, test))
    return float(sliced_wasserstein(here, there))


def compared(folder: Path, seconds: float, width: int, n: int) -> dict[str, Any]:
    """The latent model beside the pixel model."""
    config = read_header(folder / WEIGHTS)["config"]
    data, test = build_data({**config, "packages": []})
    latent: Latent = fit_scale(load_coder(folder), data)
    z = encoded(data, latent)
    images = ArrayData(data.x)
    decoded = Decoded(data.shape, latent)
    found: dict[str, Any] = {"seconds": seconds, "samples": n}
    real = test.x[:n]
    picture(real, decoded)
    found["floor"] = distance(data.x[:n], data.x, real)
    for name, kind in {"latent": z, "pixel": images}.items():
        model, steps = trained(kind, seconds, width)
        x = samples(model, kind.shape, n)
        x = decoded(x) if name == "latent" else x
        found[name] = {"steps": steps, "sliced": distance(x, data.x, real)}
        found[name]["parameters"] = sum(p.numel() for p in model.parameters())
    found["ratio"] = found["latent"]["sliced"] / found["pixel"]["sliced"]
    return found


def picture(x: Tensor, decoded: Decoded) -> None:
    """Held-out patches and what comes back of them, for docs/latents.md."""
    from sdegen.plots import save_samples

    assert decoded.latent is not None
    title = "held-out patches, their reconstructions"
    back = decoded(decoded.latent.encode(x[:10], 0.0).detach())
    save_samples(torch.cat([x[:10], back]), HERE.parent / "docs" / "latents.png", title, 10)


def main() -> None:
    """Measure, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("autoencoder", type=Path)
    parser.add_argument("codes", type=Path)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--n", type=int, default=300)
    parser.add_argument("--out", type=Path, default=HERE / "latents.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    record: dict[str, Any] = {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "threads": 1,
    }
    for name in ("autoencoder", "codes"):
        folder = getattr(args, name)
        header = read_header(folder / WEIGHTS)
        _, test = build_data({**header["config"], "packages": []})
        coder = load_coder(folder)
        found = measured(coder, test.x)
        record[name] = {"net": header["config"]["net"], "steps": header["step"], **found}
        print(name, found)
        write_json(args.out, record)
    record["models"] = compared(args.autoencoder, args.seconds, args.width, args.n)
    print(record["models"])
    write_json(args.out, record)


if __name__ == "__main__":
    main()
