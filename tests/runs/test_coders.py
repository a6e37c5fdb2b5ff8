"""Runs of autoencoders, and runs that live in their latents."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf.errors import MissingMandatoryValue

from sdegen.files import read_header, read_tensors, write_tensors
from sdegen.latents import fit_scale
from sdegen.runs.autoencoding import measured, train_autoencoder
from sdegen.runs.build import build_data
from sdegen.runs.coders import LATENTS, Decoded, build_coder, codes, latent_of, load_coder
from sdegen.runs.folder import WEIGHTS, load_run, of_data
from sdegen.runs.samples import Maker, shortened
from sdegen.runs.settings import SampleSettings, read
from sdegen.runs.students import as_student
from sdegen.runs.train import train_run
from sdegen.training.checkpoint import CHECKPOINT
from tests.cases import close, refused
from tests.configs import composed
from tests.trainers import train_alone

TINY = ("train.steps=3", "train.batch_size=8", "train.log_every=1", "device=cpu", "name=x")


def quiet(text: str) -> None:
    """What a run says."""


def config_of(*overrides: str) -> dict[str, Any]:
    """An autoencoder of digits."""
    config = composed("train", "experiment=latents/autoencoder", "net.width=4", *TINY, *overrides)
    return {**config, "data": composed("train", "data=digits")["data"]}


@pytest.fixture(scope="module")
def coder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("coder")
    train_autoencoder(config_of(), folder, quiet)
    return folder


def latent_config(coder: Path, *overrides: str) -> dict[str, Any]:
    """A model in the latents of a coder."""
    how = ("experiment=latents/diffusion", f"coder.run={coder}", "net.width=8", *TINY)
    return composed("train", *how, *overrides)


@pytest.fixture(scope="module")
def latent(tmp_path_factory: pytest.TempPathFactory, coder: Path) -> Path:
    folder = tmp_path_factory.mktemp("latent")
    train_alone(latent_config(coder, "conditional=true"), folder)
    return folder


@pytest.mark.parametrize("kind", ["progressive", "shortcut", "reflow"])
def test_an_autoencoder_teaches_nobody(coder: Path, kind: str) -> None:
    with refused("is a run of an autoencoder, which says nothing at any level"):
        as_student(composed("train", f"experiment=distill/{kind}", f"teacher.run={coder}"))


def test_an_autoencoder_leaves_everything(coder: Path) -> None:
    names = {path.name for path in coder.iterdir()}
    assert {WEIGHTS, CHECKPOINT, "config.json", "metrics.jsonl", "loss.png"} < names
    assert {"reconstructions-train.png", "reconstructions-test.png", "result.json"} < names
    found = json.loads((coder / "result.json").read_text())
    _, test = build_data(read_header(coder / WEIGHTS)["config"])
    autoencoder = load_coder(coder)
    x = test.x
    with torch.no_grad():
        mse = (autoencoder.decode(autoencoder.posterior(x)[0]) - x).double().square().mean()
    assert found["test"]["psnr"] == pytest.approx(10 * float((4 / mse).log10()), abs=1e-4)


@pytest.mark.parametrize("net", ["kl_autoencoder", "vq_autoencoder"])
def test_stopped_and_resumed_is_undisturbed(tmp_path: Path, net: str) -> None:
    """Weights, codes and averages, bit for bit."""
    ends = []
    for name, parts in {"whole": [4], "parts": [2, 4]}.items():
        for steps in parts:
            how = (f"net={net}", f"train.steps={steps}", "train.schedule=constant")
            train_autoencoder(config_of(*how), tmp_path / name, quiet)
        ends.append(read_tensors(tmp_path / name / CHECKPOINT)[0])
    assert ends[0].keys() == ends[1].keys()
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    assert any("codebook.codes" in name for name in ends[0]) == (net == "vq_autoencoder")


def test_codes_are_measured_by_their_use() -> None:
    config = config_of("net=vq_autoencoder", "net.codes=8")
    assert codes(config) and not codes(composed("train"))
    coder = build_coder(config, (1, 8, 8))
    found = measured(coder, build_data(config)[1].x[:50])
    assert 1 <= found["perplexity"] <= found["codes"] == 8


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["conditional=true"], "conditional belongs to score models"),
        (["+coder.run=x"], "coder.run belongs to score models"),
        (["objective=frechet"], "objective belongs to score models"),
        (["net.mults=[1,2,4,8,16]"], "multiples of 16, not 8"),
        (["+net.channels=3"], "of 3 channels"),
    ],
)
def test_what_no_autoencoder_is_trained_for(
    tmp_path: Path, overrides: list[str], said: str
) -> None:
    folder = tmp_path / "x"
    with refused(said):
        train_autoencoder(config_of(*overrides), folder, quiet)
    assert not folder.exists()


def test_vectors_have_no_autoencoder(tmp_path: Path) -> None:
    config = {**config_of(), "data": composed("train", "data=moons")["data"]}
    with refused("are vectors"):
        train_autoencoder(config, tmp_path / "x", quiet)


# ------------------------------------------------------------------------------ models in latents


def test_the_scale_is_the_whole_training_data_s(coder: Path, latent: Path) -> None:
    header = read_header(latent / WEIGHTS)
    assert header["shape"] == [3, 4, 4] and header["classes"] == 10
    data, _ = build_data(header["config"])
    found = fit_scale(load_coder(coder), data)
    close(header["config"]["coder"]["scale"], found.scale, 1e-6)
    mean = read_tensors(latent / LATENTS)[0]["mean"]
    close(mean, load_coder(coder).posterior(data.x)[0], 1e-4, 1e-5)


def test_samples_are_decoded(latent: Path) -> None:
    overrides = (f"run={latent}", "n=3", "nfe=4", "device=cpu", "name=x")
    settings = read(SampleSettings, composed("sample", *overrides))
    run = load_run(latent, [], "cpu")
    maker = Maker(settings, run)
    made = maker(0, 3).tensors
    assert made["x"].shape == (3, 1, 8, 8) and made["y"].shape == (3,)
    plain = Maker(settings, run)
    plain.decoded = Decoded(run.shape)
    states = plain(0, 3).tensors["x"]
    assert states.shape == (3, 3, 4, 4)
    with torch.no_grad():
        close(made["x"], latent_of(run.config).decode(states), 1e-6, 1e-6)


def test_a_state_that_failed_is_no_image(latent: Path) -> None:
    run = load_run(latent, [], "cpu")
    decoded = Decoded.of(run, [], "cpu")
    states = torch.zeros(2, 3, 4, 4)
    states[1, 0, 0, 0] = torch.nan
    x = decoded(states)
    assert x[0].isfinite().all() and x[1].isnan().all()
    assert list(decoded.shape) == [1, 8, 8]


def test_a_run_in_latents_goes_on_bit_for_bit(tmp_path: Path, coder: Path, latent: Path) -> None:
    for steps in (1, 3):
        config = latent_config(coder, "conditional=true", f"train.steps={steps}")
        train_alone(config, tmp_path / "again")
    whole, again = (read_tensors(each / CHECKPOINT)[0] for each in (latent, tmp_path / "again"))
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_a_coder_that_is_gone_or_another(tmp_path: Path, coder: Path) -> None:
    here, folder = tmp_path / "coder", tmp_path / "run"
    shutil.copytree(coder, here)
    train_alone(latent_config(here), folder)
    run = load_run(folder, [], "cpu")
    tensors, header = read_tensors(here / WEIGHTS)
    write_tensors(here / WEIGHTS, {**tensors, "log_noise": tensors["log_noise"] + 1}, header)
    with refused("has other weights"):
        Decoded.of(run, [], "cpu")
    with refused("was begun in the latents of"):
        train_alone(latent_config(here), folder)
    shutil.rmtree(here)
    with refused("that is not at .* nor at .*: bring the one of content"):
        Decoded.of(run, [], "cpu")


def test_a_coder_is_found_from_anywhere_and_beside_its_run(
    tmp_path: Path, coder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its place is whole, whatever folder it was named from; two that are moved stay together."""
    (tmp_path / "one").mkdir(), (tmp_path / "two").mkdir()
    shutil.copytree(coder, tmp_path / "one" / "coder")
    monkeypatch.chdir(tmp_path)
    train_alone(latent_config(Path("one/coder")), tmp_path / "one" / "run")
    monkeypatch.chdir(tmp_path / "two")
    decoded = Decoded.of(load_run(tmp_path / "one" / "run", [], "cpu"), [], "cpu")
    assert list(decoded.shape) == [1, 8, 8]
    (tmp_path / "one").rename(tmp_path / "three")
    again = Decoded.of(load_run(Path("../three/run"), [], "cpu"), [], "cpu")
    z = torch.randn(2, 3, 4, 4)
    assert torch.equal(again(z), decoded(z))


def test_latents_are_of_their_autoencoders_data_alone(tmp_path: Path, coder: Path) -> None:
    with refused("leave data out"):
        train_run(latent_config(coder, "data=moons"), tmp_path / "x", quiet)
    assert not (tmp_path / "x").exists()
    with pytest.raises(MissingMandatoryValue, match=r"coder\.run"):
        composed("train", "experiment=latents/diffusion", *TINY)


def test_a_score_models_network_codes_nothing(tmp_path: Path) -> None:
    config = {**config_of(), "net": composed("train", "net=unet")["net"]}
    with refused("take net=kl_autoencoder"):
        train_run({**config_of("net=unet", "net.width=8")}, tmp_path / "x", quiet)
    assert not codes(config) and not (tmp_path / "x").exists()


def test_what_a_run_in_latents_is_not_for(tmp_path: Path, coder: Path, latent: Path) -> None:
    run = load_run(latent, [], "cpu")
    with refused("models of the data themselves"):
        of_data(run, "A task")
    overrides = (f"run={latent}", "truncate=0.5", "nfe=4", "device=cpu", "name=x")
    with refused("truncate is for models of the data themselves"):
        shortened(run, read(SampleSettings, composed("sample", *overrides)))
    with refused("does not have|do not have"):
        train_run(latent_config(coder, "task=inpaint"), tmp_path / "x", quiet)
    with refused("is no autoencoder"):
        train_run(latent_config(latent), tmp_path / "x", quiet)
    with refused("autoencoder"):
        load_run(coder, [], "cpu")
    assert not (tmp_path / "x").exists()
