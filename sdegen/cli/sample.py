"""``sdegen-sample``: sample a trained run with any solver, and measure the samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sdegen.cli.main import hydra_main
from sdegen.runs.folder import load


def main() -> None:
    """The command."""
    hydra_main(run, "sample")


def run(config: dict[str, Any]) -> None:
    """Load a run's weights, sample, and write samples, picture and result beside them."""
    from sdegen.files import claim, write_json, write_tensors
    from sdegen.metrics.quality import Quality
    from sdegen.runs.build import build, build_data, build_walk
    from sdegen.runs.compare import as_json, table, timed
    from sdegen.runs.folder import class_labels, gather
    from sdegen.runs.pictures import picture

    folder = Path(config["run"])
    packages = config["packages"]
    model, trained, shape, classes = load(folder, packages, config["device"])
    solver, walk = build(config["solver"], packages), build_walk(config)
    how = {
        "solver": solver,
        "walk": walk,
        **{key: config[key] for key in ("steps", "nfe", "eta", "seed", "denoise")},
    }
    labels = class_labels(config["n"], classes)
    if labels is not None:
        model = model.given(y=labels.to(model.device))
    name = title(config)
    out = folder / "samples" / name
    claim(out)
    solution, seconds = timed(model, (config["n"], *shape), **how)
    if solution.choice is not None and not isinstance(solution.choice, tuple):
        print(solution.choice)  # of a chooser that says why
    train, test = (gather(data) for data in build_data({**trained, "packages": packages}))
    quality = Quality(train, test, config["n"])
    row = quality.row(name, config["nfe"], solution, seconds)
    write_tensors(out / "samples.safetensors", {"x": solution.x}, {"config": config})
    picture(solution.x, out / "samples.png", f"{name}, {row.nfe} NFE")
    write_json(out / "result.json", {"config": config, "rows": as_json([quality.floor, row])})
    print(table([quality.floor, row]))
    print(f"Samples are in {out}")


def title(config: dict[str, Any]) -> str:
    """A folder name that says what differs between the jobs of a sweep."""
    parts = {key: config[key] for key in ("nfe", "steps", "eta", "seed")}
    given = [f"{key}{value}" for key, value in parts.items() if value is not None]
    return "-".join([config["name"], *given, *(["denoise"] if config["denoise"] else [])])
