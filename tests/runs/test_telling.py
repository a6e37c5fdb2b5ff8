"""Runs that learn from captions: trained, resumed, sampled from new texts, and what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

import sdegen as sg
from sdegen.files import read_header, read_tensors
from sdegen.runs.folder import load_run
from sdegen.runs.judging import described
from sdegen.runs.likelihood import evaluate_run
from sdegen.runs.network import build_network
from sdegen.runs.samples import sample_run
from sdegen.runs.settings import EvaluateSettings, read
from sdegen.runs.train import train_run
from sdegen.text import Words
from tests.captioned import SAID, config_of, pictures, quiet, sampled
from tests.cases import close, refused_with
from tests.configs import composed


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny run."""
    folder: Path = tmp_path_factory.mktemp("telling")
    config = config_of(pictures(folder / "data"), "train.validate_every=1")
    assert train_run(config, folder / "run", quiet).stopped_by == 0
    return folder / "run"


def test_a_run_says_what_its_words_are(run: Path) -> None:
    header = read_header(run / "model.safetensors")
    text = header["config"]["text"]
    assert text["vocabulary"] == ["dark", "left", "light", "right"] and text["length"] == 2
    assert set(header["captions"]) == set(SAID) and header["config"]["loss"]["without"] == {
        "mask": False
    }
    model = sg.load(run)
    assert model.net.tokens.words == 4  # type: ignore[union-attr]
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert all(each["held_out"] is not None for each in records)


def test_texts_are_drawn_in_turn_and_guided(run: Path) -> None:
    two = 'prompt=["dark right","left dark light"]'
    with refused_with("The caption 'left dark light' has 3 words, but 2 are the most"):
        sample_run(sampled(run, two), quiet)
    two = 'prompt=["dark right","left dark"]'
    made = sample_run(sampled(run, two, "guidance=cfg", "guidance.scale=3"), quiet)
    assert made is not None
    tensors, _ = read_tensors(made.folder / "samples.safetensors")
    assert tensors["y"].tolist() == [0, 1, 0, 1] and (made.folder / "samples.png").is_file()
    assert set(tensors["nfe"].tolist()) == {2}
    # Sample i depends on its text and its seed alone, and more of them begin with fewer.
    more = sample_run(
        sampled(run, two, "guidance=cfg", "guidance.scale=3", "n=3", "name=b"), quiet
    )
    assert more is not None
    close(read_tensors(more.folder / "samples.safetensors")[0]["x"][:4], tensors["x"], atol=1e-6)
    # By hand.
    found = load_run(run, [], "cpu")
    assert found.text is not None
    told = found.text(["dark right", "left dark"])
    model = found.model.given(**{name: torch.cat([v, v]) for name, v in told.items()})
    guided = sg.guidance.CFG(model, 3.0, without={"mask": False})
    by_hand = sg.sample(guided, (4, 1, 4, 4), solver=sg.DPMSolverPP(2), nfe=2, seed=0)
    close(by_hand, tensors["x"], atol=1e-5)


def test_a_pair_that_is_fitted_guides_to_texts(run: Path) -> None:
    how = ['prompt=["dark right","left dark"]', "guidance=clip", "guidance.steps=2"]
    made = sample_run(sampled(run, *how, "guidance.scale=3", "name=clip"), quiet)
    assert made is not None and (run / "clip.safetensors").is_file()
    found = load_run(run, [], "cpu")
    assert found.text is not None
    told = found.text(["dark right", "left dark"] * 2)
    guided = described(found, scale=3.0, steps=2)(found.model.given(**told))
    by_hand = sg.sample(guided, (4, 1, 4, 4), solver=sg.DPMSolverPP(2), nfe=2, seed=0)
    close(by_hand, read_tensors(made.folder / "samples.safetensors")[0]["x"], atol=1e-5)
    free = sample_run(sampled(run, *how, "guidance.scale=0", "name=free"), quiet)
    assert free is not None
    null = found.model.given(**told).given(mask=torch.zeros_like(told["mask"]))
    by_hand = sg.sample(null, (4, 1, 4, 4), solver=sg.DPMSolverPP(2), nfe=2, seed=0)
    close(by_hand, read_tensors(free.folder / "samples.safetensors")[0]["x"], atol=1e-6)


def test_a_file_of_texts_and_a_negative_one(run: Path, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("dark right\n\n  light \n")
    how = [f"prompts={tmp_path / 'texts.txt'}", "guidance=cfg", "guidance.without={prompt: dark}"]
    made = sample_run(sampled(run, *how, "name=file"), quiet)
    assert made is not None
    tensors, _ = read_tensors(made.folder / "samples.safetensors")
    assert tensors["y"].tolist() == [0, 1, 0, 1]
    found = load_run(run, [], "cpu")
    assert found.text is not None
    told = found.text(["dark right", "light"] * 2)
    negative = {name: v[0] for name, v in found.text(["dark"]).items()}
    guided = sg.guidance.CFG(found.model.given(**told), 2.0, without=negative)
    by_hand = sg.sample(guided, (4, 1, 4, 4), solver=sg.DPMSolverPP(2), nfe=2, seed=0)
    close(by_hand, tensors["x"], atol=1e-5)
    without = sample_run(sampled(run, "name=plain"), quiet)  # the training captions
    assert without is not None and without.folder.name.startswith("plain")


def test_likelihoods_are_those_under_the_captions(run: Path) -> None:
    settings = composed("evaluate", f"run={run}", "n=1", "batch=1", "solver=heun", "steps=2")
    assert evaluate_run(read(EvaluateSettings, settings)).n == 1
    # Other captions of the same pictures are another evaluation.
    path = run.parent / "data" / "metadata.jsonl"
    said = path.read_text()
    swapped = {"dark": "light", "light": "dark"}
    try:
        path.write_text(re.sub("dark|light", lambda found: swapped[found[0]], said))
        with refused_with("holds an evaluation with other settings, weights or data"):
            evaluate_run(read(EvaluateSettings, settings))
    finally:
        path.write_text(said)
    assert evaluate_run(read(EvaluateSettings, settings)).n == 1


def test_a_resumed_run_drops_the_same_captions(tmp_path: Path) -> None:
    data = pictures(tmp_path / "data")
    ends = []
    for name, stops in (("whole", (4,)), ("cut", (2, 4))):
        for stop in stops:
            how = (f"train.steps={stop}", "loss.p=0.5", "train.schedule=constant")
            train_run(config_of(data, *how), tmp_path / name, quiet)
        ends.append(read_tensors(tmp_path / name / "checkpoint.safetensors")[0])
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            ["conditional=true", "data=digits"],
            "conditional=true tells the network classes, and text=Words capti",
        ),
        (["data=digits"], "text=Words tells the network captions, but the data have none"),
        (["text.width=0"], "text.width must be a whole number >= 1, but it is 0"),
        (["text.vocabulary=[dark,light]"], "The word 'left' is not among the 2 that are known"),
        (["text.length=1"], "has 2 words, but 1 are the most"),
    ],
)
def test_what_captions_do_not_go_with_is_refused(
    more: list[str], said: str, tmp_path: Path
) -> None:
    data = pictures(tmp_path / "data")
    config = config_of(data, *[each for each in more if "=" in each and each != "data=digits"])
    if "data=digits" in more:
        config["data"] = composed("train", "data=digits")["data"]
    with refused_with(said):
        train_run(config, tmp_path / "run", quiet)
    assert not (tmp_path / "run").exists()


def test_a_network_that_takes_no_tokens_is_refused() -> None:
    node = {"_target_": "sdegen.networks.MLP", "width": 8, "depth": 1}
    with refused_with("text gives the network tokens and mask, but sdegen.networks.MLP is called"):
        build_network(node, (), (3,), 0, text=Words(8).learn(SAID))


def test_wrong_texts_are_refused_before_a_sample(run: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("\n\n")
    wrong = {
        "The word 'blue' is not among the 4 that are known": ["prompt=blue"],
        "A run is told texts or classes": ["prompt=dark", "classes=[1]"],
        "takes no class: leave it out": ["classes=[1]"],
        "both say what samples are told": ["prompt=dark", f"prompts={tmp_path / 'empty.txt'}"],
        "has no line with a text": [f"prompts={tmp_path / 'empty.txt'}"],
        "cannot be read": [f"prompts={tmp_path / 'none.txt'}"],
        "With prompts a seed is one number": ["prompt=dark", "seed=[1,2]"],
        "prompt is a text, or a list of some": ["prompt=[]"],
    }
    before = {path.name for path in (run / "samples").glob("*")}
    for said, how in wrong.items():
        with refused_with(said):
            sample_run(sampled(run, *how, "name=wrong"), quiet)
    assert {path.name for path in (run / "samples").glob("*")} == before
