"""Patches of photographs as bytes, by sending noisy ones: Theis et al. (2022), beside JPEG."""

import argparse
import io
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import sdegen as sg
from sdegen.data import InfiniteBatches, photo_patches, to_uint8
from sdegen.exact import Gaussian, exact_model
from sdegen.files import write_json
from sdegen.likelihood import compressed, decompressed, even_walk, rate_distortion
from sdegen.networks import UNet

SDE = sg.EDMSDE()
SIDE, QUALITIES = 16, (2, 5, 10, 15, 20, 30, 40, 50, 60, 70, 80, 88, 94)
KEYS = "what", "value", "beside", "of", "wished"
BITS = torch.log(torch.tensor(2.0)) * 3 * SIDE**2  # nats of a patch in a bit per dimension


def trained(steps: int, batch: int = 32) -> sg.ScoreModel:
    """A network of the left parts of two photographs."""
    torch.manual_seed(0)
    data = photo_patches("train", size=SIDE, stride=4)
    net = UNet(3, width=24, mults=[1, 2], attention=[])
    model = sg.ScoreModel(net, SDE, "edm")
    adam = torch.optim.AdamW(net.parameters())
    rate = torch.optim.lr_scheduler.OneCycleLR(adam, 3e-3, max(steps, 2))
    weight, times = sg.losses.EDMWeighting(), sg.losses.LogNormalTime(-1.6, 1.4)  # finer levels
    for rows in islice(InfiniteBatches(len(data), batch), steps):
        adam.zero_grad()
        sg.dsm_loss(model, data.x[rows], weighting=weight, times=times).mean().backward()
        adam.step()
        rate.step()
    return model.eval()


def gaussian() -> sg.ScoreModel:
    """The same patches as one Gaussian: what a transform code knows of them."""
    rows = photo_patches("train", size=SIDE, stride=2).x.flatten(1).double()
    law = exact_model(Gaussian(rows.mean(0), rows.T.cov() + 1e-5 * torch.eye(3 * SIDE**2)), SDE)
    return sg.ScoreModel(lambda x, t: law(x.flatten(1), SDE(t)).x0.view_as(x), SDE, "x0")


def psnr(mse: Tensor) -> float:
    """In decibels, of values in [-1, 1]."""
    return float(10 * torch.log10(4 / mse))


def sheet(x: Tensor) -> Image.Image:
    """Patches as one picture, so that a file's head is paid once."""
    rows = to_uint8(x).unflatten(0, (-1, 8)).permute(0, 3, 1, 4, 2)
    return Image.fromarray(rows.reshape(-1, 8 * SIDE, 3).numpy())


def coded(x: Tensor, kind: str, **how: Any) -> tuple[float, Tensor]:
    """Bits per dimension and what comes back of patches in a file of Pillow's: its head, that of
    a grey sheet's file, is not counted."""
    sizes = []
    for each in (torch.zeros_like(x), x):
        file = io.BytesIO()
        sheet(each).save(file, kind, **how)
        sizes.append(file.tell())
        back = torch.tensor(np.asarray(Image.open(file))).double()
    back = back.view(-1, SIDE, 8, SIDE, 3).permute(0, 2, 4, 1, 3).reshape(x.shape)
    return 8 * (sizes[1] - sizes[0]) / x.numel(), back / 127.5 - 1


def jpeg(x: Tensor) -> list[tuple[float, float]]:
    """Bits per dimension and PSNR of every quality, colours in full."""
    each = [coded(x, "JPEG", quality=q, optimize=True, subsampling=0) for q in QUALITIES]
    return [(bits, psnr((back - x).square().mean())) for bits, back in each]


def at(curve: list[tuple[float, float]], bits: float) -> float:
    """A curve's PSNR at a rate, between its points."""
    return float(np.interp(bits, *zip(*curve, strict=True)))


def picture(path: Path, curves: dict[str, Any], shown: list[tuple[str, Tensor]]) -> None:
    """Curves, and patches as each code has them."""
    from matplotlib.figure import Figure

    figure = Figure((11, 4), dpi=150, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.3])
    for name, curve in curves.items():
        left.plot(*zip(*curve, strict=True), ".-", label=name)
    left.set(xlim=(0, 2.5), ylim=(15, 45), xlabel="bits per dimension", ylabel="PSNR, dB")
    left.legend(frameon=False, fontsize=8)
    rows = [x[:8].clamp(-1, 1).permute(2, 0, 3, 1).reshape(SIDE, -1, 3) for _, x in shown]
    right.imshow((torch.cat(rows).float().numpy() + 1) / 2)
    middles = [SIDE * (k + 0.5) for k in range(len(shown))]
    right.set(xticks=[], yticks=middles, yticklabels=[name for name, _ in shown])
    figure.savefig(path)


def main(folder: Path, steps: int = 1500, n: int = 64, levels: int = 120, sent: int = 8) -> list:
    """Rates and distortions of held-out patches, and ``sent`` of them as bytes and back."""
    folder.mkdir(parents=True, exist_ok=True)
    x = photo_patches("test", size=SIDE).x[:n].double()
    curves, models = {}, {"network": trained(steps), "Gaussian": gaussian()}
    ways = {"mean": None, "flow": sg.UniPC()}
    for name, model in models.items():
        points = rate_distortion(model, x, decoders=ways, steps=levels, points=levels // 10)
        for way in ways:
            each = [(float(p.rate.mean() / BITS), psnr(p.mse[way].mean())) for p in points]
            curves[f"{name}, {way}"] = each
    curves["JPEG"], model, own = jpeg(x), models["network"], curves["network, mean"]
    walk = even_walk(model, x, 9.0, steps=levels)
    until = min(walk.steps - 1, round(0.1 * x[0].numel() / 9))
    message = compressed(model, x[:sent], walk=walk, until=until, chunk=10.0, extra=5)
    few = rate_distortion(model, x[:sent], decoders={"mean": None}, walk=walk, points=walk.steps)
    ideal, best = float(few[until - 1].rate.mean() / BITS), few[until - 1].mse["mean"].mean()
    again = decompressed(model, message.data, walk=walk)
    flow = decompressed(model, message.data, walk=walk, decoder=sg.UniPC())
    same = torch.equal(again, model(message.state, message.level).x0)
    cut = coded(x, "JPEG", quality=15, optimize=True, subsampling=0)[1]
    shown = [("data", x[:sent]), ("mean", again), ("flow", flow), ("JPEG, 15", cut[:sent])]
    picture(folder / "picture.png", curves, shown)
    rows = [
        (f"PSNR at {bits} bits per dimension", at(own, bits), at(curves[of], bits), of, "above")
        for bits in (0.1, 0.25, 0.5, 1.0)
        for of in ("JPEG", "Gaussian, mean")
    ]
    real, error = float(message.bits.mean()) / x[0].numel(), (again - x[:sent]).square().mean()
    rows += [
        ("bits per dimension of a message", real, ideal, "KL", "2 or 3 bits a chunk more"),
        ("PSNR of a message", psnr(error), psnr(best), "E[x0 | x_t]", "equal"),
        ("decoded bit for bit", same, None, "", "true"),
        ("PNG, bits per dimension", coded(x, "PNG")[0], None, "", ""),
    ]
    config = {"steps": steps, "n": n, "levels": levels, "sent": sent, "curves": curves}
    figures = [dict(zip(KEYS, row, strict=True)) for row in rows]
    write_json(folder / "result.json", {"config": config, "figures": figures})
    return figures


if __name__ == "__main__":
    parse = argparse.ArgumentParser(description=__doc__)
    parse.add_argument("folder", type=Path)
    parse.add_argument("--quick", action="store_true", help="seconds, nothing learned")
    given = parse.parse_args()
    print(*main(given.folder, *((3, 16, 20, 1) if given.quick else ())), sep="\n")
