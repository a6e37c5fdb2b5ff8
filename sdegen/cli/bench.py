"""``sdegen-bench``: points of work-precision curves; ``sdegen-bench report``: the page of them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from sdegen.cli.main import hydra_main


def main() -> None:
    """The command."""
    if sys.argv[1:2] == ["report"]:
        del sys.argv[1]
        return hydra_main(report, "bench_report")
    store_bench()
    hydra_main(run, "bench")


def store_bench() -> None:
    """The peers beside our solvers, and the launcher's settings."""
    from hydra.core.config_store import ConfigStore
    from hydra.core.plugins import Plugins
    from hydra_plugins._sdegen import SETTINGS, Processes

    from sdegen.bench.choosers import Recommended, TunedHere
    from sdegen.bench.peers import PEERS
    from sdegen.solvers.registry import node

    store = ConfigStore.instance()
    Plugins.instance().register(Processes)
    for name, coefficients in (("tuned_walk", False), ("tuned_weights", True)):
        store.store(group="solver", name=name, node=node(TunedHere(coefficients)))
    store.store(group="solver", name="recommended", node=node(Recommended()))
    store.store(group="hydra/launcher", name="processes", node=SETTINGS)
    for name, peer in PEERS.items():
        store.store(group="solver", name=name, node=node(peer))


def run(config: dict[str, Any]) -> None:
    """All budgets of one problem, SDE, solver and walk; what the folder holds is not done again.

    ValueError, when the others are done, for a point that could not be.
    """
    from sdegen.bench.choosers import Recommended, TunedHere
    from sdegen.bench.peers import Peer
    from sdegen.bench.point import VERSION, Settings, about, key_of, library_of, measure
    from sdegen.files import read_json, write_json
    from sdegen.runs.build import build, build_walk
    from sdegen.solvers import Solver

    choices, folder = chosen(config), Path(config["folder"])
    claimed(folder, VERSION)
    packages = config["packages"]
    problem, sde = build(config["problem"], packages), build(config["sde"], packages)
    solver, walk = build(config["solver"], packages), build_walk(config)
    settings = Settings(**{each.name: config[each.name] for each in fields(Settings)})
    made_with = about(settings.device)
    if not isinstance(solver, Solver | Peer | TunedHere | Recommended):
        raise ValueError(f"solver={choices['solver']} is none that can be compared by itself.")
    gridded = not solver.traits.adaptive and not isinstance(solver, TunedHere | Recommended)
    refused = []
    for budget in budgets(config, solver.traits.adaptive):
        named = {
            "problem": choices["problem"],
            "sde": choices["sde"],
            "solver": choices["solver"],
            "walk": choices["walk"] if gridded else None,
            **budget,
            **asdict(settings),
        }
        parts = {key: config[key] for key in ("problem", "sde", "solver")}
        parts["walk"] = config["walk"] if gridded else None
        if isinstance(solver, Recommended) and "nfe" in budget:
            parts["walk"] = repr(solver.choose(problem, sde, budget["nfe"]))  # the rule may change
        path = folder / "points" / f"{key_of({**named, 'parts': parts})}.json"
        if path.is_file() and "failed" not in read_json(path):
            continue
        try:
            found = measure(problem, sde, solver, settings, folder=folder, walk=walk, **budget)
        except ValueError as error:
            found = {"failed": " ".join(str(error).split())}
        except Exception as error:  # what another library raises is a hole too, and no end
            found = {"failed": f"{type(error).__name__}: {' '.join(str(error).split())}"}
        if "failed" in found:
            refused.append(found["failed"])
        path.parent.mkdir(exist_ok=True)
        point = {"version": VERSION, "library": library_of(solver), "settings": named}
        write_json(path, {**point, "parts": parts, "about": made_with, **found})
        if "choices" not in config:  # a sweep has a progress bar
            print(line(named, found))
    if refused:
        raise ValueError(refused[0])


def chosen(config: dict[str, Any]) -> dict[str, str]:
    """The names that the groups were chosen by."""
    from hydra.core.hydra_config import HydraConfig

    names = config.get("choices") or HydraConfig.get().runtime.choices
    return {group: names[group] for group in ("problem", "sde", "solver", "walk")}


def budgets(config: dict[str, Any], adaptive: bool) -> Iterator[dict[str, Any]]:
    """One after the other: nfe, steps or tol.  ValueError for one that nothing can meet."""
    key = "tol" if adaptive else "nfe" if config["steps"] is None else "steps"
    values = config[key] if isinstance(config[key], list) else [config[key]]
    if not values:
        raise ValueError(f"{key} is an empty list: give a number, or some.")
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise ValueError(f"{key} must be a positive number, or some, but it is {value!r}.")
        if not adaptive and not isinstance(value, int):
            raise ValueError(f"{key} must be a whole number, but it is {value!r}.")
        yield {key: value}


def claimed(folder: Path, version: int) -> None:
    """A folder of results of this version; ValueError if it holds those of another."""
    from sdegen.files import read_json, write_json

    path = folder / "bench.json"
    folder.mkdir(parents=True, exist_ok=True)
    held = read_json(path) if path.is_file() else None
    if held is None:
        write_json(path, {"version": version})
    elif held != {"version": version}:
        raise ValueError(
            f"{folder} holds results of version {held.get('version')!r}, but this is {version}: "
            "give another folder=..."
        )


def line(named: dict[str, Any], found: dict[str, Any]) -> str:
    """A point for the terminal."""
    where = " ".join(f"{key}={named[key]}" for key in ("problem", "sde", "solver", "walk"))
    budget = next(f"{key}={named[key]}" for key in ("nfe", "steps", "tol") if key in named)
    if "failed" in found:
        return f"{where} {budget}: failed, {found['failed']}"
    errors = "  ".join(f"{name} {value:.3g}" for name, value in found["errors"].items())
    return f"{where} {budget}: {errors}  ({found['nfe']} calls)"


def report(config: dict[str, Any]) -> None:
    """Figures and one page of what a folder holds."""
    from sdegen.bench.results import load, write_csv
    from sdegen.report.page import write_page

    if Path(config["folder"]).is_file() and str(config["out"]).startswith(f"{config['folder']}/"):
        raise ValueError(f"{config['folder']} is a table: say where the page goes, out=page.html.")
    results = load(Path(config["folder"]))
    costs = load(Path(config["costs"])) if config["costs"] else None
    path = write_page(results, costs, Path(config["out"]), config["default"], config["run"])
    write_csv(results, path.with_name("points.csv.gz"))
    print(f"{len(results.points)} points, {len(results.holes)} holes: {path}")
