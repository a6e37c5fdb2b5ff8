"""A run's contrastive pair: fitted once, kept, the same again, and none of what has no texts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import sdegen as sg
from sdegen.data import ArrayData
from sdegen.guidance import CLIP, Guided, Similarity
from sdegen.runs import judging
from sdegen.runs.folder import Run
from sdegen.runs.guiding import DESCRIBED, guide_of
from sdegen.runs.judging import PAIR, clip_of, described
from sdegen.text import Words
from tests.cases import close, normal, refused

SDE = sg.VPSDE()
SAID = ("dark left", "light left", "dark right", "light right")
WORDS = Words(8).learn(SAID)
LOSS = {
    "_target_": "sdegen.losses.dropped",
    "p": 0.1,
    "without": {"mask": False},
    "loss": {"_target_": "sdegen.dsm_loss"},
}
OWN = ("tests",)
FEW: dict[str, Any] = {"steps": 3, "batch_size": 16}


def places(n: int = 400, captions: tuple[str, ...] = SAID) -> ArrayData:
    """Points about the corners of a square, whose captions say which."""
    y = torch.arange(n) % 4
    corner = torch.stack([2 * (y // 2) - 1, 2 * (y % 2) - 1], 1).float()
    x = corner + 0.2 * normal(n, 2).float()
    return ArrayData(x, captions=[captions[k % len(captions)] for k in y.tolist()])


def net(x: Tensor, t: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
    return 0.1 * x + (tokens * mask).sum(1, keepdim=True)


def finished(folder: Path, **how: Any) -> Run:
    train = {"_target_": "tests.runs.test_described.places"}
    config = {"loss": LOSS, "data": {"train": train, "test": train}, "conditional": False}
    config |= {"sigma_data": 1.0, "text": {"_target_": "sdegen.text.Words", **WORDS.known}}
    model = sg.ScoreModel(net, SDE, "x0")
    of = {"model": model, "config": config, "shape": [2], "counts": [], "text": WORDS, **how}
    return Run(folder, names=(), step=7, captions=SAID, **of)


def weights(clip: CLIP) -> Tensor:
    return torch.cat([p.flatten() for p in clip.parameters()])


def test_it_is_fitted_once_and_kept(tmp_path: Path) -> None:
    run = finished(tmp_path)
    torch.manual_seed(5)
    one = clip_of(run, OWN, **FEW)
    drawn = torch.rand(())
    torch.manual_seed(5)
    assert torch.rand(()) == drawn  # nobody else's generator was touched
    assert one.image.sigma_data == 1.0 and not any(p.requires_grad for p in one.parameters())
    made = (tmp_path / PAIR).stat().st_mtime_ns
    assert torch.equal(weights(clip_of(run, OWN, **FEW)), weights(one))
    assert (tmp_path / PAIR).stat().st_mtime_ns == made
    for change in ({"steps": 4}, {"width": 16}, {"lr": 1e-2}, {"seed": 1}, {"batch_size": 8}):
        other = clip_of(run, OWN, **{**FEW, **change})
        assert not torch.equal(weights(other)[:10], weights(one)[:10]), change
    assert torch.equal(weights(clip_of(run, OWN, **FEW)), weights(one))  # fitted anew


def test_one_that_was_killed_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left of a fit that did not end; the next one is as any."""
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    whole = clip_of(finished(tmp_path / "a"), OWN, **FEW)
    steps = []

    def killed(*args: Any, **how: Any) -> Tensor:
        steps.append(1)
        if len(steps) == 3:
            raise KeyboardInterrupt
        return sg.losses.contrastive(*args, **how)

    monkeypatch.setattr(judging, "contrastive", killed)
    with pytest.raises(KeyboardInterrupt):
        clip_of(finished(tmp_path / "b"), OWN, **FEW)
    assert not list((tmp_path / "b").iterdir())
    monkeypatch.undo()
    assert torch.equal(weights(clip_of(finished(tmp_path / "b"), OWN, **FEW)), weights(whole))


def test_another_run_in_the_folder_has_another(tmp_path: Path) -> None:
    run = finished(tmp_path)
    one = weights(clip_of(run, OWN, **FEW))
    words = Words(8, (*WORDS.known["vocabulary"], "more"), 2)
    for other in (
        finished(tmp_path, config={**run.config, "sigma_data": 0.3}),
        finished(tmp_path, text=words, config={**run.config, "text": words.known}),
    ):
        made = (tmp_path / PAIR).stat().st_mtime_ns
        clip_of(other, OWN, **FEW)
        assert (tmp_path / PAIR).stat().st_mtime_ns != made
    assert torch.equal(weights(clip_of(run, OWN, **FEW)), one)


def test_a_fit_finds_captions_and_guides_towards_them(tmp_path: Path) -> None:
    """Corners find their captions among four; a model of noise is drawn to the caption's own."""
    run = finished(tmp_path)
    how = {"steps": 60, "batch_size": 64, "lr": 3e-3}
    clip, data = clip_of(run, OWN, **how), places(100)
    with torch.no_grad():
        z, z_t = clip.embed(data.x), clip.embed_text(**WORDS(SAID))
    found = (z @ z_t.T).argmax(1)
    assert (found == torch.arange(100) % 4).float().mean() > 0.95
    node = {"_target_": DESCRIBED, "_partial_": True, "scale": 2.0, **how}
    told = run.model.given(**WORDS([SAID[k % 4] for k in range(40)]))
    guided = guide_of(node, run, OWN)(told)
    assert isinstance(guided, Guided) and isinstance(guided.log_p, Similarity)
    close(guided.scale, 2.0 * clip.scale.item())
    assert not guided.conditions["mask"].any() and guided.model.conditions["tokens"].any()
    x = normal(40, 2).float()
    score = guided(x, SDE(0.4)).score - guided.model(x, SDE(0.4)).score
    y = x.clone().requires_grad_()
    logits = clip(y, SDE(0.4), **told.conditions).diagonal()
    close(score, 2.0 * torch.autograd.grad(logits.sum(), y)[0], rtol=1e-4, atol=1e-5)
    own = guide_of({**node, "conditional": True}, run, OWN)(told)
    assert own.conditions["mask"].all()


def test_what_has_no_texts_or_was_never_without_is_refused(tmp_path: Path) -> None:
    run = finished(tmp_path)
    with refused("A contrastive pair needs a run that takes texts, but this one takes none"):
        described(replace(run, text=None), OWN)
    one = {"_target_": "tests.runs.test_described.places", "captions": ["dark left"]}
    alone = replace(run, config={**run.config, "data": {"train": one, "test": one}})
    with refused("tells captions apart, but the run's training data have 1"):
        clip_of(alone, OWN, **FEW)
    with refused("batch_size must be a whole number >= 2, but it is 1"):
        clip_of(run, OWN, batch_size=1)
    with refused("is for models of the data themselves"):
        clip_of(replace(run, config={**run.config, "coder": {"run": "c"}}), OWN)
    plain = replace(run, config={**run.config, "loss": LOSS["loss"]})
    node = {"_target_": DESCRIBED, "_partial_": True, **FEW}
    with refused("with mask = False, as which the run was never trained: it dropped nothing"):
        guide_of(node, plain, OWN)
    assert not (tmp_path / PAIR).exists()
