"""A run's samples beside its data, in features: known distances, names and refusals."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from sdegen.cli.main import store_groups
from sdegen.data import ArrayData, digits, gather
from sdegen.files import read_json, read_tensors, write_tensors
from sdegen.metrics import Raw, as_bytes, features_of, frechet_distance, kernel_distance
from sdegen.runs.build import build_data
from sdegen.runs.chunks import SAMPLES
from sdegen.runs.featured import featured_run
from sdegen.runs.folder import WEIGHTS, description
from sdegen.runs.network import build_model
from sdegen.runs.settings import EvaluateSettings, read
from sdegen.solvers.solver import Status
from tests.cases import refused, refused_with


def composed(command: str, *overrides: str) -> dict[str, Any]:
    """A command's configuration, as it gets it."""
    store_groups()
    with initialize_config_module("sdegen.conf", version_base="1.3"):
        plain: Any = OmegaConf.to_container(compose(command, list(overrides)), resolve=True)
    return plain


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the digits that has trained nothing, and whose samples are its held-out data."""
    folder = tmp_path_factory.mktemp("run")
    config = composed("train", "net.width=8", "net.heads=2", "name=x", "sigma_data=0.5")
    data, test = build_data(config)
    model = build_model(config, data.shape, data.classes)
    write_tensors(folder / WEIGHTS, model.state_dict(), {**description(config, data), "step": 1})
    write(folder, "same", test.x)
    return folder


def write(folder: Path, name: str, x: torch.Tensor, failed: int = 0) -> None:
    (folder / "samples" / name).mkdir(parents=True)
    status = torch.full((len(x),), int(Status.OK))
    status[:failed] = int(Status.NONFINITE)
    nfe = torch.full((len(x),), 7)
    write_tensors(folder / "samples" / name / SAMPLES, {"x": x, "nfe": nfe, "status": status}, {})


def colours(x: torch.Tensor, scale: float) -> torch.Tensor:
    """Features that a user has: the mean of each channel."""
    return scale * x.float().mean((2, 3))


def asked(run: Path, *how: str) -> EvaluateSettings:
    config = composed("evaluate", f"run={run}", "device=cpu", "features=raw", *how)
    settings: EvaluateSettings = read(EvaluateSettings, config)
    return settings


def raw(data: ArrayData) -> torch.Tensor:
    return features_of(Raw(), as_bytes(data.x))


def test_the_data_themselves_are_as_near_as_can_be(run: Path) -> None:
    found = featured_run(asked(run, "samples=same", "objective=frechet"))
    assert abs(found.samples.frechet.value) < 1e-9 and found.value == found.samples.frechet.value
    assert found.samples.shares is not None and min(found.samples.shares[:2]) == 1
    # The floor: as many training data beside the same.
    train, test = raw(digits("train")), raw(digits("test"))
    floor = found.floor
    assert floor is not None and floor.frechet.n == 898 and floor.frechet.m == 898
    whole = frechet_distance(train, test)
    assert abs(floor.frechet.value - whole) < 0.05 * whole  # of 899 one is missing
    assert "raw pixels, test data" in found.text and "FID" not in found.text
    assert "same: 898 samples, 898 data, 192 features" in found.text
    assert found.file.parent == run / "samples" / "same"
    assert found.file.name.startswith("features-raw-test-")
    kept = read_json(found.file)
    assert kept["samples"]["frechet"]["value"] == found.samples.frechet.value
    assert kept["features"] == "raw pixels" and kept["config"]["samples"] == "same"
    json.dumps(kept, allow_nan=False)


def test_samples_that_failed_are_left_out_and_counted(run: Path) -> None:
    x = digits("train").x[:40] * 1.1
    x[0] = torch.nan
    write(run, "few", x, failed=1)
    found = featured_run(asked(run, "samples=few", "n=100", "split=train", "objective=kernel"))
    assert "few, 1 more failed: 39 samples, 100 data" in found.text and found.floor is None
    own, data = features_of(Raw(), as_bytes(x[1:])), raw(gather(digits("train"), 100))
    assert found.samples.frechet.value == pytest.approx(frechet_distance(own, data))
    assert found.samples.kernel == kernel_distance(own, data)
    assert "(fewer than d + 1 = 193: biased upwards)" in found.text
    assert found.file.name.startswith("features-raw-train-")
    other = asked(run, "samples=few", "n=101", "split=train")
    assert featured_run(other).file != found.file and found.file.is_file()
    assert found.value == found.samples.kernel.value


def test_what_cannot_be_compared_is_refused(run: Path) -> None:
    write(run, "far", 100 * digits("train").x[:9])
    with refused_with(f"There are no samples None in {run}: give samples=NAME, one of far"):
        featured_run(asked(run))
    with refused("There are no samples 'x' in "):
        featured_run(asked(run, "samples=x"))
    with refused(r"Images are in \[-1, 1\], but these reach from -100 to 100: scale them"):
        featured_run(asked(run, "samples=far"))
    with refused("objective must be one of frechet, kernel, but it is 'flow'"):
        asked(run, "samples=same", "objective=flow")
    with refused_with("There is no file 'nowhere.pt' of features"):
        featured_run(
            asked(run, "samples=same", "features=torchscript", "features.path=nowhere.pt")
        )


def test_where_nothing_is_held_out_there_is_no_floor(run: Path, tmp_path: Path) -> None:
    """All data are trained on: beside themselves they would be a floor of zero."""
    node = {"_target_": "sdegen.data.digits", "split": "train"}
    tensors, header = read_tensors(run / WEIGHTS)
    settings = asked(run, "samples=a", "n=20")
    for n, (data, floored) in enumerate(
        (
            ({"held_out": None, "train": node}, False),
            ({"held_out": 0.5, "train": node}, True),
            ({"held_out": None, "train": node, "test": {**node, "split": "test"}}, True),
        )
    ):
        folder = tmp_path / f"{n}"
        folder.mkdir()
        write_tensors(
            folder / WEIGHTS, tensors, {**header, "config": {**header["config"], "data": data}}
        )
        write(folder, "a", digits("test").x[:20])
        found = featured_run(replace(settings, run=str(folder)))
        assert (found.floor is not None) is floored and ("floor" in found.text) is floored


def test_samples_that_failed_all_are_said(run: Path) -> None:
    write(run, "none", digits("train").x[:4], failed=4)
    with refused("None of the 4 samples in .*none finished"):
        featured_run(asked(run, "samples=none"))


def test_features_of_ones_own_may_be_a_part_of_a_function(run: Path) -> None:
    node = {"_target_": f"{__name__}.colours", "_partial_": True, "scale": 0.01}
    settings = replace(asked(run, "samples=same"), features=node, packages=["tests"], batch=100)
    found = featured_run(settings)
    assert found.samples.frechet.d == 3 and "colours, test data" in found.text


def test_as_many_images_are_looked_at_at_once_as_are_asked_for(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, forward = list[int](), Raw.forward

    def counted(features: Raw, x: torch.Tensor) -> torch.Tensor:
        seen.append(len(x))
        return forward(features, x)

    monkeypatch.setattr(Raw, "forward", counted)
    featured_run(asked(run, "samples=same", "n=70", "batch=33"))
    assert max(seen) == 33


def test_settings_of_likelihoods_are_refused(run: Path) -> None:
    settings = asked(run, "samples=same")
    wrong: dict[str, Any] = {"steps": 3, "elbo_draws": 2, "bounds_on": "values", "name": "x"}
    for name in wrong:
        with refused(f"{name} belongs to likelihoods: leave it or features out"):
            replace(settings, **{name: wrong[name]})
    with refused("solver belongs to likelihoods: leave it or features out"):
        asked(run, "samples=same", "solver=heun")


@pytest.mark.slow
def test_the_runs_own_classifier(run: Path) -> None:
    found = featured_run(asked(run, "samples=same", "features=classifier"))
    assert "the run's classifier, test data" in found.text and found.samples.frechet.d == 64
    assert found.floor is not None and found.samples.frechet.value < found.floor.frechet.value


def test_points_are_no_images(tmp_path: Path) -> None:
    how: list[Any] = ["experiment=toy2d", "net.width=16", "name=x", "sigma_data=0.5"]
    config = composed("train", *how)
    data, _ = build_data(config)
    model = build_model(config, data.shape, data.classes)
    write_tensors(tmp_path / WEIGHTS, model.state_dict(), {**description(config, data), "step": 1})
    write(tmp_path, "a", data.x[:9])
    with refused_with("Images are (n, 1 or 3, h, w), but x is (9, 2)"):
        featured_run(asked(tmp_path, "samples=a", "n=9"))
    with refused_with("features=classifier needs images with classes"):
        featured_run(asked(tmp_path, "samples=a", "features=classifier"))
