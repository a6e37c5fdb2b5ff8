"""``sdegen-evaluate``: bits per dimension, or log-likelihood, of a trained run on data."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from sdegen.cli.main import hydra_main
from sdegen.runs.likelihood import PARTS, check, mean_of, measure, resumed, table, trained_range


def main() -> None:
    """The command."""
    hydra_main(run, "evaluate")


def run(config: dict[str, Any]) -> None:
    """Evaluate batch by batch, each recorded when done: the same command goes on from there."""
    from tqdm import tqdm

    from sdegen.files import claim, write_json
    from sdegen.plots import save_histogram
    from sdegen.runs.build import build_data
    from sdegen.runs.folder import WEIGHTS, gather, load

    for name in ("batch", "n"):
        if config[name] is not None and not config[name] >= 1:
            raise ValueError(f"{name} must be at least 1, but it is {config[name]!r}.")
    source = Path(config["run"])
    model, trained, shape, classes = load(source, config["packages"], config["device"])
    about = {**trained, "packages": config["packages"]}
    if config.get("data"):
        about["data"] = config["data"]
    pair = dict(zip(("train", "test"), build_data(about), strict=True))
    if config["split"] not in pair:
        raise ValueError(f"split must be 'train' or 'test', but it is {config['split']!r}.")
    data = gather(pair[config["split"]], config["n"] or 10**9)
    x, y = data.x[: config["n"]], data.y[: config["n"]]
    check(x, shape, data.levels, trained_range({**trained, "packages": config["packages"]}))
    folder = source / config["name"]
    claim(folder)
    # Other weights or other data under the same settings are another evaluation.
    digest = hashlib.sha256((source / WEIGHTS).read_bytes() + x.contiguous().numpy().tobytes())
    done = resumed(folder, {**config, "of": digest.hexdigest()}, len(x))
    with (
        tqdm(total=len(x), initial=len(done), unit="sample", leave=False) as bar,
        (folder / PARTS).open("a", encoding="utf-8") as parts,
    ):
        for first in range(len(done), len(x), config["batch"]):
            rows = slice(first, first + config["batch"])
            given = model.given(y=y[rows].to(model.device)) if classes else model
            found = measure(given, x[rows], data.levels, config, first)
            parts.writelines(json.dumps(row) + "\n" for row in found)
            parts.flush()
            done += found
            bar.update(len(found))
    values = {name: [row[name] for row in done] for name in done[0]}
    summary = {name: mean_of(column) for name, column in values.items() if name != "error"}
    unit = "bits per dimension" if data.levels else "nats"
    result = {"config": config, "n": len(done), "unit": unit, "mean": summary, "samples": values}
    write_json(folder / "result.json", result)
    shown = {
        name: [v for v in column if v is not None]
        for name, column in values.items()
        if name not in ("error", "nfe")
    }
    save_histogram(shown, folder / "histogram.png", unit, f"{source.name}, {config['split']}")
    print(table(summary, unit, len(done)))
    print(f"Result, histogram and values of all samples are in {folder}")
