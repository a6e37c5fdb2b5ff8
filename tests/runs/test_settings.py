"""The settings of the commands: conf/ and the checked values agree, wrong ones are a sentence."""

from __future__ import annotations

from dataclasses import MISSING, fields

import pytest
from hydra.errors import HydraException

from sdegen.bench.folder import BenchSettings
from sdegen.cli.main import explain
from sdegen.report.page import ReportSettings
from sdegen.report.run import RunReportSettings
from sdegen.runs.card import CardSettings
from sdegen.runs.folder import device_of
from sdegen.runs.settings import (
    EvaluateSettings,
    Experiment,
    SampleSettings,
    TuneSettings,
    read,
    record,
)
from sdegen.training.settings import TrainSettings
from tests.cases import refused
from tests.configs import composed

COMMANDS: dict[str, type] = {
    "sample": SampleSettings,
    "tune": TuneSettings,
    "evaluate": EvaluateSettings,
    "bench": BenchSettings,
    "bench_report": ReportSettings,
    "report": RunReportSettings,
    "card": CardSettings,
}


@pytest.mark.parametrize("command", COMMANDS)
def test_conf_has_every_setting_and_no_other(command: str) -> None:
    config, kind = composed(command), COMMANDS[command]
    known = {each.name for each in fields(kind)}
    assert config.keys() <= known
    missing = known - config.keys()
    assert missing <= {each.name for each in fields(kind) if each.default is not MISSING}
    assert missing <= {"data", "solver", "choices", "features"}
    settings = read(kind, config)
    if command != "bench":
        assert record(settings) == config


def test_an_experiment_is_read_and_may_have_keys_of_its_own() -> None:
    config = composed("train", "+mine=3", "train.steps=7", "evaluate.budgets=[4]")
    experiment = Experiment.of(config)
    assert experiment.train.steps == 7 and experiment.evaluate.budgets == [4]
    assert set(experiment.evaluate.solvers) > {"ddim", "heun"}
    for wrong, reason in (
        ("evaluate.budgets=[0]", "evaluate.budgets must be a whole number >= 1, but it is 0"),
        (
            "evaluate.budgets=4",
            "evaluate.budgets must be a list of network calls, as \\[10,20\\], but it is 4",
        ),
        ("conditional=3", "conditional must be true or false, but it is 3"),
        ("evaluate.seed=x", "evaluate.seed must be a whole number, but it is 'x'"),
        ("+evaluate.budget=3", "no setting budget: it must be one of budgets, seed, solvers"),
    ):
        with refused(reason):
            Experiment.of(composed("train", wrong))


def test_a_group_without_settings_says_so() -> None:
    with pytest.raises(HydraException) as caught:
        composed("sample", "walk.T=3")
    assert explain(caught.value) == "there is no setting walk.T: there are none here."


WRONG = {
    "sample nfe=abc": "nfe must be a whole number >= 1, but it is 'abc'",
    "sample nfe=3.5": "nfe must be a whole number >= 1, but it is 3.5",
    "sample nfe=true": "nfe must be a whole number >= 1, but it is True",
    "sample steps=-1": "steps must be a whole number >= 1, but it is -1",
    "sample n=0": "n must be a whole number >= 1, but it is 0",
    "sample n=null": "n must be a whole number >= 1, but it is None",
    "sample eta=x": "eta must be a number >= 0, but it is 'x'",
    "sample eta=[0,-1]": "eta must be a number >= 0, but it is -1",
    "sample seed=1.5": "seed must be a whole number, but it is 1.5",
    "sample denoise=maybe": "denoise must be true or false, but it is 'maybe'",
    "sample packages=mine": "packages must be a list of names, packages=",
    "sample run=null": "run must be a name, but it is None",
    "sample +nfx=3": "no setting nfx: it must be one of batch_size, classes, denoise, device, ",
    "sample name=../x": "name must be the name of a folder, but it is '../x'",
    "evaluate name=/x": "name must be the name of a folder, but it is '/x'",
    "evaluate objective=x": "objective must be one of flow, elbo, ddpm, but it is 'x'",
    "evaluate objective=ddpm": "objective=ddpm is measured with ddpm_steps >= 1",
    "sample batch_size=0": "batch_size must be a whole number >= 1, but it is 0",
    "sample classes=3": "classes must be a list, classes=[...], but it is 3",
    "sample weights=ema": "Unknown weights 'ema': it must be one of averaged, finished, raw",
    "sample step=0": "step must be a whole number >= 1, but it is 0",
    "sample ema=x": "ema must be a number >= 0, but it is 'x'",
    "sample ema_std=x": "A profile's std must be a number",
    "sample ema_std=0.999": "A profile's std lies above 0 and at or below 0.2887",
    "sample formats=png": "formats must be a list of names, formats=",
    "sample formats=[tiff]": "Unknown format 'tiff': it must be one of gif, npz, png",
    "sample objective=fid": "objective must be one of frechet, sliced, but it is 'fid'",
    "sample seed=[1,2]": "There are 2 seeds for n = 100 samples: give one each",
    "sample quality=1": "quality must be true or false, but it is 1",
    "sample image=x.png": "image belongs to a task: give task=..., or leave it out",
    "sample draws=2": "draws belongs to a task",
    "sample prompt=3": "prompt is a text, or a list of some, but it is 3",
    "sample start=0.4": "start belongs to a task",
    "sample observation=mmps": "observation belongs to a task",
    "sample ~n": "setting n has no value: give n=",
    "tune nfe=5.0": "nfe must be a whole number >= 1, but it is 5.0",
    "tune coefficients=1": "coefficients must be true or false, but it is 1",
    "tune iterations=0": "iterations must be a whole number >= 1, but it is 0",
    "evaluate probes=0": "probes must be a whole number >= 1, but it is 0",
    "evaluate batch=x": "batch must be a whole number >= 1, but it is 'x'",
    "evaluate elbo_draws=-1": "elbo_draws must be a whole number >= 0, but it is -1",
    "evaluate split=valid": "split must be 'train' or 'test', but it is 'valid'",
    "evaluate bounds_on=x": "Unknown bounds_on 'x': it must be one of dequantised, values",
    "evaluate samples=x": "samples=x are compared by features: give features=",
    "evaluate objective=frechet": "objective must be one of flow, elbo, ddpm, but it is 'frechet'",
    "evaluate seed=null": "seed must be a whole number, but it is None",
    "bench folder=null": "folder must be a name, but it is None",
    "bench n=x": "n must be a whole number >= 2, but it is 'x'",
    "report nfe=0": "nfe must be a whole number >= 1, but it is 0",
    "bench_report out=null": "out must be a name, but it is None",
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_is_one_sentence(wrong: str) -> None:
    command, argument = wrong.split()
    with refused(WRONG[wrong].replace("[", r"\[")):
        read(COMMANDS[command], composed(command, argument))


def test_what_may_be_left_open_may() -> None:
    some = ["seed=null", "eta=[0,0.5]", "name=7", "run=3", "classes=[3,a]"]
    sample = read(SampleSettings, composed("sample", *some))
    assert sample.seed is None and sample.title == "7-etas0_0.5" and sample.run == "3"
    names = ["seed7", "seed7-denoise", "seeds7", "eta0.5-seed0", "etas0.5-seed0"]
    jobs = ["seed=7", "seed=7 denoise=true", "seed=[7] n=1", "eta=0.5", "eta=[0.5]"]
    titles = [read(SampleSettings, composed("sample", *each.split())).title for each in jobs]
    assert titles == [f"x-{each}" for each in names]
    assert read(SampleSettings, composed("sample", "~solver")).solver is None
    at = read(SampleSettings, composed("sample", "step=5000", "ema=0.99", "steps=5"))
    assert at.title == "x-at5000-ema0.99-steps5-seed0"
    at = read(SampleSettings, composed("sample", "ema_std=0.08"))
    assert at.title == "x-ema_std0.08-seed0"
    task = ["task=edit", "start=0.4", "image=a/b.png", "draws=3"]
    edit = read(SampleSettings, composed("sample", *task))
    assert edit.title == "x-image-b-seed0" and edit.task == {
        "_target_": "sdegen.runs.editing.Edit",
        "start": 0.4,
    }


def test_a_task_takes_what_is_its_own() -> None:
    for wrong, says in (
        (
            ["task=inpaint", "start=0.4"],
            "start=0.4 belongs to task=edit and diffedit: leave it out",
        ),
        (["task=edit", "start=x"], "start must be a number, but it is 'x'"),
        (["task=inpaint", "draws=0"], "draws must be a whole number >= 1, but it is 0"),
        (["task=inpaint", "seed=[1,2]", "n=2"], "With a task a seed is one number"),
    ):
        with refused(says):
            read(SampleSettings, composed("sample", *wrong))


def test_a_device_that_is_not_there_is_refused() -> None:
    assert device_of("cpu").type == "cpu" and device_of("auto").type in ("cpu", "cuda")
    for name in ("tpu", "cuda:99", "mps:99", "meta"):
        with refused(rf"device={name} cannot be used: .*[^.]\. Use device=cpu"):
            device_of(name)


def test_a_constant_rate_takes_an_experiments_after_away() -> None:
    some = ["experiment=networks/edm2", "train.schedule=constant"]
    with refused("train.after = 100 is the step .* by train.after=null"):
        read(TrainSettings, composed("train", *some)["train"])
    assert read(TrainSettings, composed("train", *some, "train.after=null")["train"]).after is None
