"""What a run must share with the one that it continues, and what it need not."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from sdegen.runs.train import identity
from sdegen.training import TrainSettings
from sdegen.training.identity import refuse_other
from tests.cases import refused


def of(**train: Any) -> dict[str, Any]:
    """The identity of a run with these settings."""
    names = ("sde", "net", "model", "data", "loss", "conditional")
    return identity({**dict.fromkeys(names), "train": asdict(TrainSettings(**train))})


def test_what_changes_no_step_may_change() -> None:
    plain = of()
    assert plain == of(compile=True, checkpointing=True, keep_every=7, sample_every=40)
    assert plain == of(ema=[0.999]) == of(save_every=1, workers=3, steps=9, precision="64-true")
    # Of a checkpoint that was made when there were fewer settings.
    fixed = ("batch_size", "optimizer", "warmup", "clip", "ema", "seed")
    assert set(plain["train"]) == set(fixed)


def test_another_list_of_decays_is_another_run() -> None:
    for before, now in ((0.999, [0.999, 0.9]), ([0.9, 0.999], [0.999, 0.9]), ([0.9, 0.5], 0.9)):
        with refused(r"made with train.ema = .*, but this run has train.ema = "):
            refuse_other(Path("x"), of(ema=before), of(ema=now))
    refuse_other(Path("x"), of(ema=[0.9, 0.5]), of(ema=[0.9, 0.5], compile=True))
