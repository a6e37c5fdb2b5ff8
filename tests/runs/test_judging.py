"""A run's judge: fitted once, kept, the same again, and no judge of what has no classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from sdegen.data import toy
from sdegen.files import read_tensors, write_tensors
from sdegen.guidance import Guided, Judge
from sdegen.networks import MLP, Flattened, Trunk
from sdegen.runs.folder import Run
from sdegen.runs.guiding import JUDGED, guide_of
from sdegen.runs.judging import JUDGE, built, classified, judge_of, times_in
from tests.cases import awake, normal, refused
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


def test_small_states_have_an_mlp_and_large_images_a_trunk(tmp_path: Path) -> None:
    """An MLP of images knows places: of two that are the same but for a shift it says another."""
    assert isinstance(built(finished(tmp_path), None, ()).logits.net, MLP)
    images = finished(tmp_path, shape=[1, 8, 8])
    net = awake(built(images, None, ()).logits.net)
    assert isinstance(net, Flattened)
    x, t = normal(4, 1, 8, 8), torch.zeros(4).double()
    assert net(x, t).shape == (4, 2)
    assert not torch.allclose(net(x.roll(1, -1), t), net(x, t), atol=1e-3)
    for shape, kind in (([3, 32, 32], Trunk), ([1, 32, 32], Flattened)):
        assert isinstance(built(finished(tmp_path, shape=shape), None, ()).logits.net, kind)


def test_a_judge_of_another_network_is_fitted_anew(tmp_path: Path) -> None:
    """One that an earlier version left, whose usual network was another, is not loaded."""
    run = finished(tmp_path)
    one = judge_of(run, asked(), ())
    tensors, header = read_tensors(tmp_path / JUDGE)
    assert header is not None
    write_tensors(tmp_path / JUDGE, tensors, {**header, "network": {}})
    judge_of(run, asked(), ())
    assert read_tensors(tmp_path / JUDGE)[1] == header
    assert torch.equal(weights(judge_of(run, asked(), ())), weights(one))


def test_settings_of_a_fit_are_checked(tmp_path: Path) -> None:
    """Before anything is fitted: none, none learned, and none in words."""
    run = finished(tmp_path)
    for how, said in (
        ({"steps": 0}, "guidance.steps must be a whole number >= 1, but it is 0"),
        ({"steps": -1}, "guidance.steps must be a whole number >= 1, but it is -1"),
        ({"batch_size": 0}, "guidance.batch_size must be a whole number >= 1, but it is 0"),
        ({"lr": "abc"}, "guidance.lr must be a number, but it is 'abc'"),
        ({"lr": -1.0}, "guidance.lr is above 0, but it is -1.0"),
        ({"seed": "abc"}, "guidance.seed must be a whole number, but it is 'abc'"),
        ({"net": "mlp"}, "guidance.net is a node, as '{_target_: sdegen.networks.Trunk"),
        (
            {"conditional": "maybe"},
            "guidance.conditional must be true or false, but it is 'maybe'",
        ),
    ):
        with refused(said):
            guide_of({"_target_": JUDGED, "_partial_": True, **how}, run)
    assert not (tmp_path / JUDGE).exists()


def test_a_network_of_ones_own(tmp_path: Path) -> None:
    """As the command says it: guidance.net={_target_: ..., width: 8}, of the run's shape."""
    net = {"_target_": "sdegen.networks.MLP", "width": 8}
    node = {"_target_": JUDGED, "_partial_": True, "steps": 2, "net": net}
    guided = guide_of(node, finished(tmp_path))(labelled(SDE).given(y=torch.tensor([0, 1])))
    assert guided.log_p.logits.net.leave.in_features == 8


@pytest.mark.parametrize("name", ["sdegen.networks.MLP", "sdegen.networks.mlp.MLP"])
def test_an_mlp_of_images_by_either_name(name: str, tmp_path: Path) -> None:
    run, net = finished(tmp_path, shape=[1, 8, 8]), {"_target_": name, "width": 8}
    assert built(run, net, ()).logits.net(torch.zeros(2, 1, 8, 8), torch.zeros(2)).shape == (2, 2)


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
