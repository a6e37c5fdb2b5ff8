"""A run's judge: fitted once, kept, the same again, and no judge of what has no classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from sdegen.data import toy
from sdegen.guidance import Guided, Judge
from sdegen.networks import MLP, Trunk
from sdegen.runs.folder import Run
from sdegen.runs.guiding import JUDGED, guide_of
from sdegen.runs.judging import JUDGE, classified, judge_of, times_in
from tests.cases import normal, refused
from tests.labelled import SDE, labelled

MOONS = {"_target_": "sdegen.data.toy", "name": "moons", "n": 2000}
TIMES = {"_target_": "sdegen.losses.LogNormalTime"}
LOSS = {
    "_target_": "sdegen.losses.dropped",
    "p": 0.1,
    "without": {"y": 2},
    "loss": {"_target_": "sdegen.dsm_loss", "times": TIMES},
}


def finished(folder: Path, **how: Any) -> Run:
    config = {"loss": LOSS, "data": {"train": MOONS}, "conditional": True, "sigma_data": 0.8}
    of = {"model": labelled(SDE), "config": config, "shape": [2], "counts": [3, 3], **how}
    return Run(folder, names=(), step=7, **of)


def weights(judge: Judge) -> torch.Tensor:
    return torch.cat([p.flatten() for p in judge.parameters()])


def asked(**how: Any) -> dict[str, Any]:
    return {"net": None, "steps": 3, "batch_size": 16, "lr": 1e-3, "seed": 0, **how}


def test_it_is_fitted_once_and_kept(tmp_path: Path) -> None:
    run = finished(tmp_path)
    torch.manual_seed(5)
    one = judge_of(run, asked(), ())
    drawn = torch.rand(())
    torch.manual_seed(5)
    assert torch.rand(()) == drawn  # nobody else's generator was touched
    assert one.logits.sigma_data == 0.8 and not any(p.requires_grad for p in one.parameters())
    made = (tmp_path / JUDGE).stat().st_mtime_ns
    assert torch.equal(weights(judge_of(run, asked(), ())), weights(one))
    assert (tmp_path / JUDGE).stat().st_mtime_ns == made
    other = judge_of(run, asked(steps=4), ())
    assert not torch.equal(weights(other), weights(one))
    assert torch.equal(weights(judge_of(run, asked(), ())), weights(one))  # fitted anew
    net = {"_target_": "sdegen.networks.MLP", "width": 16}
    assert judge_of(run, asked(net=net), ()).logits.net.leave.in_features == 16  # type: ignore[union-attr]


def test_another_run_in_the_folder_has_another_judge(tmp_path: Path) -> None:
    """Its states, data or times may be others, whatever its steps."""
    run = finished(tmp_path)
    one = weights(judge_of(run, asked(), ()))
    data = {"train": {**MOONS, "n": 1000}}
    for change in ({"sigma_data": 0.3}, {"data": data}, {"sde": {"_target_": "sdegen.VESDE"}}):
        other = finished(tmp_path, config={**run.config, **change})
        made = (tmp_path / JUDGE).stat().st_mtime_ns
        judge_of(other, asked(), ())
        assert (tmp_path / JUDGE).stat().st_mtime_ns != made, change
    assert torch.equal(weights(judge_of(run, asked(), ())), one)


def test_a_fit_learns(tmp_path: Path) -> None:
    """Of moons that hardly overlap, at little noise: most are told apart after 150 steps."""
    judge = judge_of(finished(tmp_path), asked(steps=150, batch_size=64), ())
    data = toy("moons", 500, seed=1)
    level = SDE(torch.full((len(data),), 0.05))
    found = judge.logits(data.x, level).argmax(1)
    assert float((found == data.y).float().mean()) > 0.8


def test_it_guides_the_model_without_labels_or_the_one_with(tmp_path: Path) -> None:
    node = {"_target_": JUDGED, "_partial_": True, "steps": 2, "scale": 2.0}
    model = labelled(SDE).given(y=torch.tensor([0, 1, 1]))
    free = guide_of(node, finished(tmp_path))(model)
    assert isinstance(free, Guided) and free.scale == 2.0
    assert free.conditions["y"].tolist() == [2, 2, 2] and free.about["y"].tolist() == [0, 1, 1]
    both = guide_of({**node, "conditional": True}, finished(tmp_path))(model)
    assert both.conditions["y"].tolist() == [0, 1, 1]
    assert both.output(normal(3, 2).float(), SDE(0.5)).shape == (3, 2)


def test_images_have_a_trunk_and_vectors_an_mlp(tmp_path: Path) -> None:
    from sdegen.runs.judging import built

    assert isinstance(built(finished(tmp_path), None, ()).logits.net, MLP)
    images = finished(tmp_path, shape=[1, 8, 8])
    assert isinstance(built(images, None, ()).logits.net, Trunk)


def test_times_are_the_losss() -> None:
    assert times_in(LOSS) == TIMES
    assert times_in({"_target_": "sdegen.dsm_loss"}) is None


def test_what_has_no_classes_or_was_never_without_is_refused(tmp_path: Path) -> None:
    with refused("needs a model that takes a class, but the run's takes none"):
        classified(finished(tmp_path, counts=[]))
    plain = {**finished(tmp_path).config, "loss": LOSS["loss"]}
    node = {"_target_": JUDGED, "_partial_": True, "steps": 2}
    with refused("with y = 2, as which the run was never trained: it dropped nothing"):
        guide_of(node, finished(tmp_path, config=plain))
    assert not (tmp_path / JUDGE).exists()


@pytest.mark.parametrize("shape", [(4, 1, 8, 8), (4, 1, 5, 7)])
def test_a_trunk_takes_images_of_any_size(shape: tuple[int, ...]) -> None:
    net = Trunk(1, 5, width=16)
    x, t = torch.randn(shape), torch.zeros(4)
    assert net(x, t).shape == (4, 5)
    assert torch.allclose(net(x[:1], t[:1]), net(x, t)[:1], atol=1e-5)
    with refused(r"x has shape \(4, 2, 8, 8\), expected \(B, 1, H, W\)"):
        net(torch.randn(4, 2, 8, 8), t)
    assert Trunk(2, 3, width=16, dims=1)(torch.randn(2, 2, 16), torch.zeros(2)).shape == (2, 3)
