"""sigma_data=auto as a number, and warnings of data whose scale is not that of the noise."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

import sdegen as sg
from sdegen.data import ArrayData, digits
from sdegen.files import write_tensors
from sdegen.model import PredictEDM
from sdegen.runs.scale import warn_of_scale, with_sigma
from sdegen.training.checkpoint import CHECKPOINT
from tests.cases import Plain, refused

AUTO: dict[str, Any] = {
    "sigma_data": "auto",
    "model": {"predicts": "edm", "sigma_data": "auto"},
    "loss": {"weighting": {"sigma_data": "auto"}, "times": {"mean": -1.2}},
    "evaluate": {"solvers": {"f": {"sigma_data": "auto"}, "x": {"sigma_data": 0.5}}},
}


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def test_auto_is_the_std_of_the_training_data_wherever_it_stands(tmp_path: Path) -> None:
    config = with_sigma(AUTO, digits(), tmp_path)
    exact = digits().x.double().numpy().std()
    sigma = config["sigma_data"]
    assert sigma == pytest.approx(exact, rel=1e-4) and sigma == float(f"{exact:.4g}")
    assert config["model"] == {"predicts": "edm", "sigma_data": sigma}
    assert config["loss"] == {"weighting": {"sigma_data": sigma}, "times": {"mean": -1.2}}
    assert config["evaluate"]["solvers"] == {"f": {"sigma_data": sigma}, "x": {"sigma_data": 0.5}}
    assert AUTO["sigma_data"] == "auto"


def test_a_number_stays(tmp_path: Path) -> None:
    config = {"sigma_data": 0.5, "model": {"sigma_data": 0.5}}
    assert with_sigma(config, digits(), tmp_path) == config
    assert with_sigma({"model": {}}, digits(), tmp_path) == {"model": {}}
    mixed = with_sigma({"model": {"sigma_data": 0.3}, "sigma_data": "auto"}, digits(), tmp_path)
    assert mixed["model"]["sigma_data"] == 0.3 and mixed["sigma_data"] == pytest.approx(0.7517)


def test_a_run_goes_on_with_the_number_that_it_was_begun_with(tmp_path: Path) -> None:
    """One that was begun with 0.5 is not refused by the command that now says auto."""
    identity = {"sde": {}, "model": {"sigma_data": 0.5}, "loss": {"sigma_data": 0.5}}
    write_tensors(tmp_path / CHECKPOINT, {"x": torch.zeros(1)}, {"identity": identity})
    assert with_sigma(AUTO, digits(), tmp_path)["model"]["sigma_data"] == 0.5
    (tmp_path / CHECKPOINT).write_bytes(b"damaged")  # which the training refuses
    assert with_sigma(AUTO, digits(), tmp_path)["sigma_data"] == 0.7517


def test_the_number_is_not_that_of_anything_else(tmp_path: Path) -> None:
    """A network has a sigma_data of its own, first among the settings, and a weighting another."""
    net = {"_target_": "mine.Sig", "sigma_data": 1.0}
    identity = {"net": net, "model": {"sigma_data": 0.7}, "loss": {"weighting": {"sigma_data": 2}}}
    config = {"net": net, **AUTO, "loss": {"weighting": {"sigma_data": 2}}}
    begun = {"identity": identity}
    write_tensors(tmp_path / CHECKPOINT, {"x": torch.zeros(1)}, begun)
    found = with_sigma(config, digits(), tmp_path)
    assert found["sigma_data"] == found["model"]["sigma_data"] == 0.7
    assert {name: found[name] for name in ("net", "loss")} == {
        name: config[name] for name in ("net", "loss")
    }
    # Its own key is asked first, where a model had been given another number.
    begun["run"] = {"config": {"sigma_data": 0.6}}
    write_tensors(tmp_path / CHECKPOINT, {"x": torch.zeros(1)}, begun)
    assert with_sigma(config, digits(), tmp_path)["sigma_data"] == 0.6
    # Nothing here was measured: another one is not taken in its place.
    write_tensors(tmp_path / CHECKPOINT, {"x": torch.zeros(1)}, {"identity": {"net": net}})
    assert with_sigma(config, digits(), tmp_path)["sigma_data"] == 0.7517


@pytest.mark.parametrize("wrong", ["abc", None, True, [1.0]])
def test_what_is_neither_number_nor_auto_is_refused(tmp_path: Path, wrong: Any) -> None:
    said = re.escape(f"sigma_data must be a number or auto, but it is {wrong!r}.")
    with refused(said):
        with_sigma({**AUTO, "sigma_data": wrong}, digits(), tmp_path)
    with refused(r"model\." + said):
        with_sigma({"sigma_data": 0.5, "model": {"sigma_data": wrong}}, digits(), tmp_path)
    for takes in (sg.losses.EDMWeighting, PredictEDM):
        with refused(re.escape(f"sigma_data must be a number, but it is {wrong!r}.")):
            takes(wrong)


def test_what_cannot_be_measured_is_refused(tmp_path: Path) -> None:
    with refused("which is 0: all their numbers are the same"):
        with_sigma(AUTO, ArrayData(torch.ones(3, 2)), tmp_path)


SDES = {
    "vp": sg.VPSDE(),
    "ve": sg.VESDE(),
    "edm": sg.EDMSDE(),
    "flow": sg.FlowSDE(T=1.0),
    "ddpm": sg.DiscreteVPSDE(),
}


@pytest.mark.parametrize("name", SDES)
def test_data_of_unit_scale_pass_and_others_are_named(name: str) -> None:
    sde = SDES[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for x in (normal(500, 3), 0.5 * normal(500, 1, 8) - 0.3):
            warn_of_scale(sde, ArrayData(x))
    far = r"mean 1e\+05 and std 1\.0\d, but the noise of this SDE, from .*: save \(x - mean\)"
    with pytest.warns(UserWarning, match=far):
        warn_of_scale(sde, ArrayData(1e5 + normal(500, 3)))
    with pytest.warns(
        UserWarning, match=r"The data have mean .* and std (9\.\d+e-06|1\.0\d*e-05)"
    ):
        warn_of_scale(sde, ArrayData(1e-5 * normal(500, 3)))


def test_bytes_that_were_not_scaled_are_told_but_images_are_fine() -> None:
    x = torch.arange(256.0).repeat(4).view(16, 1, 8, 8)
    with pytest.warns(UserWarning, match=r"The data have mean 128 and std 73.9, but"):
        warn_of_scale(sg.VPSDE(), ArrayData(x))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_scale(sg.VPSDE(), ArrayData(x / 127.5 - 1, levels=256))
        warn_of_scale(sg.EDMSDE(T=5000.0), ArrayData(x))  # noise made for them


def test_one_column_of_a_table_is_enough() -> None:
    """Taken together the numbers have a std of 1: the third alone drowns in the least noise."""
    x = normal(1000, 4)
    x[:, 2] *= 1e-3
    x[:, 3] = 1.0  # constant: no scale
    with pytest.warns(UserWarning, match=r"Column 2 of the data has mean .* and std 0\.00"):
        warn_of_scale(sg.VPSDE(), ArrayData(x))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_scale(sg.VPSDE(), ArrayData(x[:, [0, 1, 3]]))


def test_an_sde_without_marginals_is_not_judged() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_scale(Plain(), ArrayData(1e5 * normal(50, 3)))
