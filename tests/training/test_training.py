"""Training: exact resume, files that are whole or absent, and what is refused."""

from __future__ import annotations

import copy
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import sdegen as sg
from sdegen.data import ArrayData
from sdegen.exact.distributions import Gaussian, exact_model
from sdegen.files import read_tensors, write_tensors
from sdegen.networks import MLP
from sdegen.training import Trainer, TrainSettings
from sdegen.training.averages import Average, average
from sdegen.training.checkpoint import CHECKPOINT
from sdegen.training.signals import stopping
from sdegen.training.trainer import RECORDS, step_seed
from tests.cases import normal
from tests.trainers import trainer


class Killed(Exception):
    pass


def test_a_killed_run_resumes_bit_for_bit(tmp_path: Path) -> None:
    """Killed after step 8, so that the last checkpoint is that of step 5 and records are ahead."""
    whole = trainer(tmp_path / "whole")
    list(whole.steps())
    broken = trainer(tmp_path / "broken")
    with pytest.raises(Killed):
        for record in broken.steps():
            if record.step == 8:
                raise Killed
    again = trainer(tmp_path / "broken")
    assert again.step == 5
    list(again.steps())
    one, two = (load_file(tmp_path / name / CHECKPOINT) for name in ("whole", "broken"))
    assert one.keys() == two.keys() and any(name.startswith("optimizer.") for name in one)
    assert all(torch.equal(one[name], two[name]) for name in one)
    lines = [(tmp_path / name / RECORDS).read_text().splitlines() for name in ("whole", "broken")]
    steps = [[json.loads(line)["step"] for line in each] for each in lines]
    assert steps[0] == steps[1] == [4, 8, 12]


def test_steps_differ_in_their_noise(tmp_path: Path) -> None:
    """The negative of the above: another seed is another run."""
    runs = [trainer(tmp_path / str(seed), seed=seed) for seed in (1, 2)]
    for run in runs:
        list(run.steps())
    weights = [torch.cat([p.flatten() for p in run.model.parameters()]) for run in runs]
    assert not torch.allclose(*weights)
    seeds = {step_seed(s, r, k) for s in range(5) for r in range(5) for k in range(40)}
    assert len(seeds) == 1000


def test_finished_run_goes_on_when_steps_are_raised(tmp_path: Path) -> None:
    list(trainer(tmp_path / "a", steps=6).steps())
    assert not list(trainer(tmp_path / "a", steps=6).steps())
    longer = trainer(tmp_path / "a", steps=12)
    assert longer.step == 6
    list(longer.steps())
    whole = trainer(tmp_path / "b", steps=12)
    list(whole.steps())
    a, b = longer.model.state_dict(), whole.model.state_dict()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_training_finds_a_known_score(tmp_path: Path) -> None:
    """On Gaussian data the loss is known in closed form, and so is the score to be found."""
    problem = Gaussian([0.3, -0.2], [0.25, 0.25])
    sde = sg.VPSDE()
    torch.manual_seed(0)
    data = ArrayData(problem.sample(4000, torch.Generator().manual_seed(0)).float())
    model = sg.ScoreModel(MLP(dim=2, width=32, depth=2), sde, time="c_noise", scale_input=True)
    run = Trainer(
        model,
        data,
        sg.dsm_loss,
        lambda weights: torch.optim.AdamW(weights, lr=4e-3),
        TrainSettings(steps=400, batch_size=256, warmup=10, ema=0.99, device="cpu"),
        tmp_path,
    )
    list(run.steps())
    exact = exact_model(problem, sde)
    for t in (0.05, 0.3, 0.8):
        level = sde(t)
        x = float(level.alpha) * problem.sample(500, torch.Generator().manual_seed(1)).float()
        x = x + float(level.sigma) * torch.randn(
            x.shape, generator=torch.Generator().manual_seed(2)
        )
        with torch.no_grad():
            error = (run.averaged(x, t).eps - exact(x, t).eps).square().mean()
            size = exact(x, t).eps.square().mean()
        assert error < 0.03 * size, (t, float(error), float(size))


def test_average_is_the_textbook_one() -> None:
    """Of decay (1 + n)/(10 + n), at most 0.9; the first weights are taken as they are, and one
    whose state was loaded goes on from there."""
    net = nn.Linear(3, 2)
    kept, weights = Average(copy.deepcopy(net), average(0.9)), net.weight.detach().clone()
    for n in range(6):
        with torch.no_grad():
            net.weight.copy_(normal(2, 3, seed=n, dtype=torch.float32))
        kept.update(net)
        decay = (1 + n) / (10 + n) if n else 0.0
        weights = decay * weights + (1 - decay) * net.weight.detach()
        torch.testing.assert_close(kept.module.weight.detach(), weights)
    other = Average(copy.deepcopy(net), average(0.9))
    other.update(net)
    other.load_state_dict({**kept.state_dict(), "n_averaged": torch.tensor(10_000)})
    other.update(net)
    wanted = 0.9 * weights + 0.1 * net.weight.detach()
    torch.testing.assert_close(other.module.weight.detach(), wanted)
    assert int(other.n_averaged) == 10_001


def test_learning_rate_rises_and_gradients_are_clipped(tmp_path: Path) -> None:
    run = trainer(tmp_path / "r", steps=6, warmup=4, log_every=1, clip=1e-9)
    before = [p.clone() for p in run.model.parameters()]
    rates = [record.lr for record in run.steps()]
    assert rates == pytest.approx([2.5e-3, 5e-3, 7.5e-3, 1e-2, 1e-2, 1e-2])
    # AdamW's step is scale free, so what a clip to 1e-9 leaves is seen in its second moment.
    state = run.optimizer.state_dict()["state"]
    assert max(float(entry["exp_avg_sq"].max()) for entry in state.values()) < 1e-18
    assert len(before) == len(state)


def test_another_configuration_is_refused(tmp_path: Path) -> None:
    list(trainer(tmp_path / "r", identity={"sde": {"beta_max": 20.0}}).steps())
    with pytest.raises(ValueError, match=r"made with sde.beta_max = 20.0, .* = 10.0.*name="):
        trainer(tmp_path / "r", identity={"sde": {"beta_max": 10.0}})


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    list(trainer(tmp_path / "r").steps())
    path = tmp_path / "r" / CHECKPOINT
    whole = path.read_bytes()
    for damage in (whole[: len(whole) // 2], b"", b"\xff" * 100, whole[:8] + b"x" + whole[9:]):
        path.write_bytes(damage)
        with pytest.raises(ValueError, match=r"damaged.*restore a copy, or delete it"):
            trainer(tmp_path / "r")
    with pytest.raises(ValueError, match="no checkpoint"):
        read_tensors(tmp_path / "nothing.safetensors")


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    from sdegen.files import load_weights

    write_tensors(tmp_path / "w.safetensors", nn.Linear(3, 2).state_dict(), {})
    tensors, _ = read_tensors(tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="belongs to another network"):
        load_weights(nn.Linear(2, 2), tensors, tmp_path / "w.safetensors")


def test_a_signal_is_a_wish() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stopping() as wish:
        assert not wish
        os.kill(os.getpid(), signal.SIGTERM)
        assert wish.signum == signal.SIGTERM
        assert signal.getsignal(signal.SIGTERM) is before
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_wish_is_granted_after_the_step(tmp_path: Path) -> None:
    with stopping() as wish:
        run = trainer(tmp_path / "r", log_every=1, save_every=100)
        for record in run.steps(wish):
            if record.step == 3:
                os.kill(os.getpid(), signal.SIGTERM)
    assert run.step == 3 and trainer(tmp_path / "r").step == 3


@pytest.mark.parametrize(
    "wrong",
    [{"steps": 0}, {"batch_size": 0}, {"warmup": -1}, {"clip": 0.0}, {"ema": 1.0}, {"devices": 0},
     {"device": "tpu"}, {"steps": 1.5}, {"seed": -1}],
    ids=str,
)  # fmt: skip
def test_settings_refuse(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(ValueError, match=f"train.{name} .*not"):
        TrainSettings(**wrong)


def test_cuda_where_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="sees no CUDA device"):
        trainer(tmp_path / "r", device="cuda")
