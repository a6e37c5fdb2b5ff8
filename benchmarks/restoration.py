"""What restoring models are worth: beside a regression, and beside models that never saw the task.

    sdegen-train experiment=restoration/palette_inpaint
    sdegen-train experiment=restoration/palette_colorize
    sdegen-train                                          the digits, for imputation
    python benchmarks/restoration.py                      writes benchmarks/restoration.json
    python benchmarks/restoration.py --quick --out x.json without trained runs, in seconds

On held-out images, 16 samples of each: PSNR in dB of one sample and of the mean of the 16, their
spread, the largest change of what was known, and the network's evaluations; of the hole alone
where there is one. The regression is a network of the same kind, trained here by squared error for
as many steps of as many images as the run: E[x0 | c] in one evaluation, which is the mean of all
samples of a model that is right. Imputation and RePaint restore with the unconditional model of
the digits.
"""

from __future__ import annotations

import argparse
import platform
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

import sdegen as sg
from sdegen.data import ArrayData, InfiniteBatches, digits, gather
from sdegen.files import write_json
from sdegen.guidance import Known
from sdegen.losses import Inpaint
from sdegen.metrics.restored import Restored
from sdegen.networks import UNet
from sdegen.runs.build import build_data, build_task
from sdegen.runs.folder import load_run
from sdegen.runs.network import build_model
from sdegen.runs.restoring import Seen, draw, restored, with_known
from sdegen.walks import log_snr, repaint

OUT = Path(__file__).with_suffix(".json")
DRAWS = 16
Row = dict[str, Any]


def regression(model: sg.ScoreModel, data: ArrayData, task: Any, steps: int, size: int) -> Any:
    """(c, batch) -> E[x0 | c], learned by squared error; of the hole alone where there is one."""
    net = model.net
    assert isinstance(net, torch.nn.Module)
    optimizer = torch.optim.AdamW(net.train().parameters(), lr=1e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    torch.manual_seed(0)

    def mean(c: Tensor) -> Tensor:
        nothing = torch.zeros(len(c), *data.shape)
        return net(nothing, torch.zeros(len(c)), c=c)  # type: ignore[no-any-return]

    order = InfiniteBatches(len(data), size, 0)
    for _, batch in zip(range(steps), order, strict=False):
        x0 = data.x[torch.as_tensor(batch)]
        c, hole = task(x0)
        found = mean(c)
        if hole is not None:
            found = torch.where(hole, found, x0)
        optimizer.zero_grad()
        mse_loss(found, x0).backward()
        optimizer.step()
        schedule.step()
    net.eval()
    return mean


def row(found: Restored | None, nfe: int) -> Row:
    """One method's numbers."""
    assert found is not None
    return {
        "one": round(found.one, 2),
        "mean": round(found.mean, 2),
        "spread": round(found.spread, 4),
        "known": found.known,
        "nfe": nfe,
    }


def sampled(told: Any, some: Seen, **how: Any) -> tuple[Tensor, Row]:
    """Samples (m DRAWS, *) and their numbers; told: places of images -> the model."""
    at = torch.arange(len(some.x0)).repeat_interleave(DRAWS)
    done = sg.solve(told(at), (len(at), *some.x0.shape[1:]), seed=0, **how)
    x = with_known(done.x, some, at)
    return x, row(restored(x, some, DRAWS), int(done.nfe.max()))


def beside(model: sg.ScoreModel, some: Seen, steps: int) -> tuple[Tensor, Row]:
    """Of a model that was trained for the task."""

    def told(at: Tensor) -> Any:
        seen = model.given(c=some.c[at])
        return seen if some.hole is None else Known(seen, some.x0[at], ~some.hole[at])

    return sampled(told, some, solver=sg.DPMSolverPP(2), steps=steps)


def imputed(model: Any, some: Seen, steps: int, quick: bool) -> dict[str, Row]:
    """Of one that was not: plainly, with noise, and on RePaint's walks."""
    assert some.hole is not None

    def told(at: Tensor) -> Any:
        assert some.hole is not None
        return Known(model(len(at)), some.x0[at], ~some.hole[at])

    jumps = {"RePaint, 2 times": 2} if quick else {"RePaint, 2 times": 2, "RePaint, 5 times": 5}
    rows = {
        "imputation, eta 0": sampled(told, some, solver=sg.DPMSolverPP(2), steps=steps)[1],
        "imputation, eta 1": sampled(told, some, solver=sg.DPMSolverPP(2), steps=steps, eta=1)[1],
    }
    for name, times in jumps.items():
        sde = model(1).sde
        walk = repaint(sde, log_snr(sde, steps), jump_length=steps // 4, resamplings=times)
        rows[name] = sampled(told, some, solver=sg.Ancestral(), walk=walk)[1]
    return rows


def case(
    model: sg.ScoreModel,
    other: sg.ScoreModel,
    data: tuple[Any, Any],
    task: Any,
    how: tuple[int, int, int],
    picture: Path | None,
) -> tuple[dict[str, Row], Seen]:
    """A trained model and a regression; how: images, and the training's steps and batch."""
    n, steps, size = how
    train, test = data
    some = Seen.of(task, gather(test, n))
    x, ours = beside(model, some, 20)
    mean = regression(other, train, task, steps, size)
    with torch.no_grad():
        one = with_known(mean(some.c), some, torch.arange(len(some.x0)))
    rows = {"trained for it": ours, "regression": row(restored(one, some, 1), 1)}
    if picture is not None:
        each = x.unflatten(0, (-1, DRAWS))
        columns = {"seen": some.picture, **{f"sample {k + 1}": each[:, k] for k in range(3)}}
        columns |= {f"mean of {DRAWS}": each.mean(1), "regression": one}
        draw(picture, "", some.x0, columns, 6)
    return rows, some


def trained(folder: Path, n: int, pictures: Path | None) -> tuple[dict[str, Row], Seen]:
    """Of a run's folder."""
    run = load_run(folder, [], "cpu")
    task = build_task(run.config["task"])
    torch.manual_seed(0)
    other = build_model(run.config, run.shape, 0)
    how = n, run.config["train"]["steps"], run.config["train"]["batch_size"]
    picture = None if pictures is None else pictures / f"{folder.name}.png"
    return case(run.model, other, build_data(run.config), task, how, picture)


def main() -> None:
    """Measure, write and print."""
    parse = argparse.ArgumentParser(description=__doc__)
    parse.add_argument("--runs", type=Path, default=Path("outputs"), help="the folder of the runs")
    parse.add_argument("--pictures", type=Path, help="a folder for pictures of the restorations")
    parse.add_argument("--quick", action="store_true")
    parse.add_argument("--out", type=Path, default=OUT)
    args = parse.parse_args()
    torch.set_num_threads(1)
    rows: dict[str, dict[str, Row]] = {}
    if args.quick:
        torch.manual_seed(0)
        nets = [UNet(1, width=8, heads=2, beside=1).eval() for _ in range(2)]
        models = [sg.ScoreModel(net, sg.VPSDE(), "edm") for net in nets]
        data, task = (digits("train"), digits("test")), Inpaint(0.5, "random")
        rows["inpaint"], some = case(models[0], models[1], data, task, (3, 2, 8), None)
        plain = sg.ScoreModel(UNet(1, width=8, heads=2).eval(), sg.VPSDE(), "edm")
        rows["inpaint"] |= imputed(lambda b: plain, some, 8, True)
    else:
        runs = args.runs / "restoration"
        rows["inpaint"], some = trained(runs / "palette_inpaint", 50, args.pictures)
        model = load_run(args.runs / "digits", [], "cpu").model
        none = torch.full((len(some.x0) * DRAWS,), 10)
        rows["inpaint"] |= imputed(lambda b: model.given(y=none[:b]), some, 40, False)
        rows["colorize"], _ = trained(runs / "palette_colorize", 24, args.pictures)
    record = {
        "what": f"held-out images restored, {DRAWS} samples of each, float32; PSNR in dB",
        "on": "one thread of a 2-core x86-64 virtual machine",
        "torch": torch.__version__,
        "sdegen": sg.__version__,
        "python": platform.python_version(),
        "rows": rows,
    }
    for kind, each in rows.items():
        for name, numbers in each.items():
            said = "  ".join(f"{k} {v}" for k, v in numbers.items())
            print(f"{kind:10s}{name:20s}{said}", flush=True)
    write_json(args.out, record)


if __name__ == "__main__":
    main()
