"""What conditions of Song et al. do, of judges and of similarities, and what renoising purifies.

    python benchmarks/control.py --run outputs/digits    writes benchmarks/control.json and the
                                                         pictures docs/semantic.png, purified.png
    python benchmarks/control.py --quick --out folder    without a trained run, in seconds
    ... --part classifier                                that part anew, the others as they are

imputation:   two Gaussians of correlation 0.9, one known to be 1.5, so that the other is
              N(1.35, 0.19): what ways of imputation draw, on VP, by network evaluations.
classifier:   digits drawn without a class and guided to one by a judge of noisy states, two
              judges that were fitted by other seeds.
similarity:   digits drawn without a class and guided to the features of one image each.
purification: digits attacked on a classifier (one step of the gradient's sign), noised to
              sigma / alpha = rho and drawn again, eta = 1, by a model that is told no class: what
              the classifier then says. The attack does not know of the purification.
"""

from __future__ import annotations

import argparse
import json
import platform
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

import sdegen as sg
from sdegen.data import class_labels, digits
from sdegen.exact import Gaussian, exact_model
from sdegen.files import write_json
from sdegen.guidance import Encoder, Guided, Known, Mask, Similarity, mmps
from sdegen.losses import matched
from sdegen.metrics import fit_classifier
from sdegen.networks import Trunk, UNet
from sdegen.plots import save_samples
from sdegen.runs.folder import Run, load_run
from sdegen.runs.judging import classified
from sdegen.sampling import resample

HERE = Path(__file__).parent
PARTS = ("imputation", "classifier", "similarity", "purification")


def imputation(n: int) -> dict[str, Any]:
    """Means and variances of the unknown one; the truth is 1.35 and 0.19."""
    model = exact_model(Gaussian([0.0, 0.0], [[1.0, 0.9], [0.9, 1.0]]), sg.VPSDE())
    y, mask = torch.tensor([[1.5, 0.0]]).double(), torch.tensor([[True, False]])
    known = Known(model, y, mask)
    four = sg.PredictorCorrector(sg.Ancestral(), sg.Langevin(), n=4)
    ways: dict[str, tuple[Any, dict[str, Any]]] = {
        "DDIM, 100": (known, {"solver": sg.DDIM(), "steps": 100}),
        "DDPM, 100": (known, {"solver": sg.Ancestral(), "steps": 100}),
        "DDPM, 1000": (known, {"solver": sg.Ancestral(), "steps": 1000}),
        "DDPM and 4 Langevin steps, 100": (known, {"solver": four, "steps": 100}),
        "RePaint(10, 10), 250": (known, sg.recipes.repaint(250, 10, 10, sg.walks.log_snr)),
        "MMPS, DPM-Solver++(2M), 100": (
            mmps(model, y, Mask(mask), 0.01),
            {"solver": sg.DPMSolverPP(2), "steps": 100, "eta": 1.0},
        ),
    }
    found = {}
    for name, (asked, how) in ways.items():
        done = sg.solve(asked, (n, 2), seed=0, **how)
        x = done.x[:, 1].double()
        found[name] = {
            "mean": round(float(x.mean()), 3),
            "variance": round(float(x.var()), 3),
            "nfe": int(done.nfe.max()),
        }
    return found


def spread(x: Tensor, y: Tensor) -> float:
    """The mean variance within classes."""
    parts = [x[y == k].var(0) * int((y == k).sum()) for k in y.unique()]
    return float(torch.stack(parts).sum(0).mean() / len(x))


def judged(run: Run, right: Any, n: int, steps: int, own: float) -> dict[str, Any]:
    """Shares of the right class, by the scale of guidance by two judges of other seeds."""
    y, found = class_labels(n, [1] * 10), dict[str, Any]()
    for seed in (1, 0):  # the folder keeps that of the command's own seed
        for scale in (0.0, 1.0, 2.0, 4.0, 10.0):
            guide = classified(run, scale=scale, steps=steps, seed=seed)
            model = guide(run.model.given(y=y))
            x = sg.sample(model, (n, 1, 8, 8), solver=sg.DPMSolverPP(2), steps=20, seed=0)
            found.setdefault(f"{scale:g}", {})[f"judge {seed}"] = {
                "right": round(right(x, y), 3),
                "variance": round(spread(x, y) / own, 3),
                "largest": round(float(x.abs().max()), 2),
            }
    return found


def learned(run: Run, teacher: Any, x: Tensor, steps: int) -> Encoder:
    """An encoder of noisy digits that says what the teacher says of clean ones."""
    torch.manual_seed(0)
    encoder = Encoder(Trunk(1, 64), run.model.sde)
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    times = sg.losses.LogNormalTime()
    for _ in range(steps):
        batch = x[torch.randint(len(x), (128,))]
        loss = matched(encoder, batch, teacher=teacher, times=times).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return encoder.eval().requires_grad_(False)


def similar(
    run: Run, classifier: Any, right: Any, data: Any, n: int, steps: int, path: Path
) -> dict[str, Any]:
    """Digits like given ones: the cosine of clean features, and the share of their class."""
    encoder = learned(run, classifier.features, digits("train").x, steps)
    places = [int((data.y == k).nonzero()[i]) for k in range(10) for i in range(n // 10)]
    targets, y = data.x[places], data.y[places]
    with torch.no_grad():
        features = classifier.features(targets)
    free = run.model.given(y=torch.full((len(targets),), 10))
    found, shown = {}, [targets[:: n // 10]]
    for scale in (0.0, 10.0, 30.0, 100.0):
        model = Guided(free, Similarity(encoder), scale, given={"target": features})
        x = sg.sample(model, targets.shape, solver=sg.DPMSolverPP(2), steps=20, seed=0)
        with torch.no_grad():
            cos = torch.cosine_similarity(classifier.features(x), features)
        found[f"{scale:g}"] = {
            "cosine": round(float(cos.mean()), 3),
            "right": round(right(x, y), 3),
            "largest": round(float(x.abs().max()), 2),
        }
        shown.append(x[:: n // 10])
    save_samples(torch.cat(shown), path, "Targets; similarity 0, 10, 30, 100", columns=10)
    return found


def attacked(classifier: Any, x: Tensor, y: Tensor, size: float) -> Tensor:
    """x + size sign(grad loss), in the data's range.  Goodfellow et al. (2015), eq. 1 ff."""
    asked = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(cross_entropy(classifier(asked), y, reduction="sum"), asked)
    return (x + size * slope.sign()).clamp(-1, 1)


def purified(run: Run, right: Any, classifier: Any, data: Any, n: int, path: Path) -> Any:
    """Accuracies of clean and attacked digits, by how far they are noised and drawn again."""
    x, y = data.x[:n], data.y[:n]
    bad = attacked(classifier, x, y, 0.35)
    model = run.model.given(y=torch.full((n,), 10))
    found: dict[str, Any] = {"0": {"clean": right(x, y), "attacked": right(bad, y)}}
    shown = [x[:10], bad[:10]]
    how: dict[str, Any] = {"solver": sg.DPMSolverPP(2), "steps": 10, "eta": 1.0, "seed": 0}
    for rho in (0.1, 0.2, 0.3, 0.4, 0.6, 0.8):
        clean, cured = (resample(model, each, rho=rho, **how) for each in (x, bad))
        found[f"{rho:g}"] = {"clean": right(clean, y), "attacked": right(cured, y)}
        if rho in (0.2, 0.4, 0.8):
            shown.append(cured[:10])
    save_samples(
        torch.cat(shown), path, "Clean; attacked; purified, rho = 0.2, 0.4, 0.8", columns=10
    )
    return {k: {n: round(v, 3) for n, v in row.items()} for k, row in found.items()}


def untrained(folder: Path) -> Run:
    """A run that has learned nothing, for --quick."""
    torch.manual_seed(0)
    model = sg.ScoreModel(UNet(channels=1, classes=10, width=8).eval(), sg.VPSDE(), "edm")
    config = {
        "loss": {},
        "conditional": True,
        "data": {
            name: {"_target_": "sdegen.data.digits", "split": name} for name in ("train", "test")
        },
    }
    return Run(folder, model, config, [1, 8, 8], [1] * 10, (), 0)


def main() -> None:
    """Measure, write and print."""
    parse = argparse.ArgumentParser(description=__doc__)
    parse.add_argument("--run", type=Path, help="a run of the digits, trained with loss=dropped")
    parse.add_argument("--quick", action="store_true")
    parse.add_argument("--out", type=Path)
    parse.add_argument("--part", choices=PARTS, help="do this one anew, of what was done before")
    args = parse.parse_args()
    if args.quick == (args.run is not None) or (args.quick and args.out is None):
        parse.error("give --run, or --quick and --out")
    torch.set_num_threads(1)
    out, docs = args.out or HERE, args.out or HERE.parent / "docs"
    run = untrained(out) if args.quick else load_run(args.run, [], "cpu")
    run.model.requires_grad_(False)
    train, data = digits("train"), digits("test")
    n, steps = (20, 3) if args.quick else (500, 1000)
    classifier = fit_classifier(train.x, train.y, steps=3 if args.quick else 300)
    classifier.requires_grad_(False)

    def right(x: Tensor, y: Tensor) -> float:
        return float((classifier(x).argmax(1) == y).double().mean())

    record: dict[str, Any] = {
        "what": f"{n} samples each, float32; imputation of {8 * n}, float64 coefficients",
        "on": "one thread of a 2-core x86-64 virtual machine",
        "torch": torch.__version__,
        "sdegen": sg.__version__,
        "python": platform.python_version(),
    }
    few = min(n, 100)
    parts: dict[str, Any] = {
        "imputation": partial(imputation, 8 * n),
        "classifier": partial(judged, run, right, n, steps, spread(train.x, train.y)),
        "similarity": partial(
            similar, run, classifier, right, data, few, steps, docs / "semantic.png"
        ),
        "purification": partial(purified, run, right, classifier, data, n, docs / "purified.png"),
    }
    if args.part:
        record = {**json.loads((out / "control.json").read_text()), **record}
        parts = {args.part: parts[args.part]}
    for name, part in parts.items():
        record[name] = part()
        print(name, *(f"  {k:32s}{json.dumps(v)}" for k, v in record[name].items()), sep="\n")
    write_json(out / "control.json", record)


if __name__ == "__main__":
    main()
