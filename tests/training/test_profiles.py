"""Averages of any width: the recursion's weights, their width, and others out of snapshots."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sdegen as sg
from sdegen.files import read_tensors, write_tensors
from sdegen.training import TrainSettings
from sdegen.training.averages import Average, Averages
from sdegen.training.checkpoint import CHECKPOINT, weights_in
from sdegen.training.profiles import (
    SNAPSHOTS,
    WIDEST,
    combination,
    posthoc,
    power,
    power_gamma,
    power_std,
    snapshots_of,
)
from tests.cases import close, refused
from tests.trainers import trainer

NAME = "profile1.module.net.enter.weight"
"""One of the averages in a snapshot."""


class Scale(nn.Module):
    """One weight."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.scale * x


def recursion(weights: Tensor, std: float) -> Tensor:
    """The averages of the weights (n,) after each step."""
    model, found = Scale(), list[Tensor]()
    kept = Average(deepcopy(model), power(std))
    for w in weights:
        with torch.no_grad():
            model.scale.copy_(w)
        kept.update(model)
        found.append(kept.module.scale.detach().clone())
    return torch.stack(found)


def direct(weights: Tensor, std: float) -> Tensor:
    """The same by the weights of each step, (j^(g+1) - (j-1)^(g+1)) / n^(g+1)."""
    n, g = len(weights), power_gamma(std)
    j = torch.arange(n + 1, dtype=torch.float64) / n
    return (j.pow(g + 1).diff() * weights).sum()


def walk(n: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, dtype=torch.float64, generator=generator).cumsum(0)


@pytest.mark.parametrize(("std", "gamma"), [(0.05, 16.97), (0.10, 6.94)])
def test_the_published_exponents(std: float, gamma: float) -> None:
    """Karras et al. (2024), sec. 3.1."""
    assert abs(power_gamma(std) - gamma) < 5e-3
    close(power_std(power_gamma(std)), std)
    assert power_gamma(WIDEST) < 1e-12


@pytest.mark.parametrize("std", [0.02, 0.05, 0.1, 0.25])
def test_the_recursion_is_the_direct_sum(std: float) -> None:
    weights = walk(500)
    averages = recursion(weights, std)
    for n in (1, 2, 37, 500):
        close(averages[n - 1], direct(weights[:n], std), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("std", [0.05, 0.1, 0.2])
def test_the_width_is_that_of_the_weights(std: float) -> None:
    """Measured by what each step has in the average: of the recursion on unit vectors."""
    n = 1000
    rate, average = power(std), torch.zeros(n, dtype=torch.float64)
    for k in range(n):
        part = rate(k) if k else 1.0
        average *= 1 - part
        average[k] += part
    at = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    mean = (average * at).sum()
    close(average.sum(), 1.0)
    assert abs(float((average * (at - mean) ** 2).sum().sqrt()) - std) < 1e-3 * std


def test_a_tracked_profile_is_reconstructed_exactly() -> None:
    steps = [100, 200, 300, 400]
    weights, off = combination([s for s in steps for _ in range(2)], [0.05, 0.1] * 4, 400, 0.1)
    close(weights, [0, 0, 0, 0, 0, 0, 0, 1], atol=1e-12)
    assert off < 1e-6


@pytest.mark.parametrize(("std", "most"), [(0.075, 5e-3), (0.15, 2e-2), (0.06, 1e-2)])
def test_another_profile_is_near(std: float, most: float) -> None:
    """Of a random walk, relative to how far the average is from the last weights."""
    weights, every = walk(1600), 200
    tracked = [recursion(weights, s) for s in (0.05, 0.1)]
    places = [(k, i) for k in range(every, 1601, every) for i in (0, 1)]
    shares, off = combination(
        [k for k, _ in places], [(0.05, 0.1)[i] for _, i in places], 1600, std
    )
    found = (shares * torch.stack([tracked[i][k - 1] for k, i in places])).sum()
    wanted = direct(weights, std)
    assert abs(found - wanted) < most * abs(wanted - weights[-1])
    close(shares.sum(), 1.0, rtol=1e-9)
    assert off < 0.1


def run(folder: Path, **how: Any) -> Any:
    return trainer(folder, **{"ema": 0.9, "snapshot_every": 3, "save_every": 5, **how})


def test_snapshots_are_the_averages_of_their_steps(tmp_path: Path) -> None:
    """A run that ends there has that average; and posthoc gives what was tracked."""
    whole = run(tmp_path / "whole")
    list(whole.steps())
    assert list(snapshots_of(tmp_path / "whole")) == [3, 6, 9, 12]
    short = run(tmp_path / "short", steps=6)
    list(short.steps())
    tensors, about = read_tensors(tmp_path / "whole" / SNAPSHOTS / "00000006.safetensors")
    assert about == {"step": 6, "ema_stds": [0.05, 0.1]}
    for name, each in short.averages.named().items():
        for key, value in each.state_dict().items():
            if name != "ema":
                assert torch.equal(tensors[f"{name}.{key}"], value)
    for i, std in enumerate((0.05, 0.1)):
        found, _ = posthoc(tmp_path / "whole", std, tmp_path / "whole" / CHECKPOINT)
        own = whole.averages.copies[1 + i].module.state_dict()
        assert found.keys() == own.keys()
        for key, value in own.items():
            close(found[key], value, rtol=1e-6, atol=1e-7)


def test_profiles_change_nothing_else(tmp_path: Path) -> None:
    list(run(tmp_path / "with").steps())
    list(run(tmp_path / "without", snapshot_every=0).steps())
    a, b = (read_tensors(tmp_path / n / CHECKPOINT)[0] for n in ("with", "without"))
    assert b.keys() < a.keys() and all(torch.equal(a[k], b[k]) for k in b)
    assert not (tmp_path / "without" / SNAPSHOTS).exists()


def test_a_stopped_run_has_the_same_snapshots(tmp_path: Path) -> None:
    """Killed between a snapshot and the checkpoint that would have gone with it, too."""
    list(run(tmp_path / "whole").steps())
    part = tmp_path / "part"
    for record in run(part, log_every=1).steps():
        if record.step == 8:
            break
    later = snapshots_of(part)[6].with_name("00000009.safetensors")
    later.write_bytes(b"of a run that got further, and whose checkpoint is lost")
    again = run(part)
    assert again.step == 6
    generator = again.steps()
    next(generator)
    assert not later.exists()
    list(generator)
    one, two = snapshots_of(tmp_path / "whole"), snapshots_of(part)
    assert list(one) == list(two)
    for step in one:
        (a, about), (b, said) = read_tensors(one[step]), read_tensors(two[step])
        assert about == said and a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
    x, y = (read_tensors(tmp_path / n / CHECKPOINT)[0] for n in ("whole", "part"))
    assert x.keys() == y.keys() and all(torch.equal(x[k], y[k]) for k in x)


def test_other_profiles_are_refused(tmp_path: Path) -> None:
    list(run(tmp_path, steps=6).steps())
    with refused(r"profiles \[0.05, 0.1\], but this run has \[\] \(train.snapshot_every"):
        run(tmp_path, snapshot_every=0)
    with refused(r"profiles \[0.05, 0.1\], but this run has \[0.2\]"):
        run(tmp_path, ema_stds=[0.2])
    assert run(tmp_path, snapshot_every=4).step == 6  # other steps tell the profiles as well
    with refused("There is no average of ema=0.08: there are 0.9. The width .* ema_std=0.08"):
        weights_in(tmp_path / CHECKPOINT, False, 0.08)


CHANGES: list[tuple[Callable[[dict[str, Tensor], dict[str, Any]], Any], str]] = [
    (lambda tensors, about: about.update(step=6), "says step = 6, but by its name .* it is 3"),
    (lambda tensors, about: about.pop("step"), "says step = None, but by its name"),
    (
        lambda tensors, about: about.update(ema_stds=[0.05, 0.2]),
        r"says ema_stds = \[0.05, 0.2\], but by its name and its run it is \[0.05, 0.1\]",
    ),
    (lambda tensors, about: tensors.pop(NAME), "has other weights than the checkpoint"),
    (
        lambda tensors, about: tensors.update({NAME: tensors[NAME][:1]}),
        "has other weights than the checkpoint .*: it is of another network",
    ),
]


def test_only_snapshots_of_their_name_and_run_are_taken(tmp_path: Path) -> None:
    list(run(tmp_path, steps=6).steps())
    path = snapshots_of(tmp_path)[3]
    for other in ("00000003 (copy)", "3", "00000004-old"):
        path.with_name(f"{other}.safetensors").write_bytes(path.read_bytes())
    assert snapshots_of(tmp_path) == {3: path, 6: path.with_name("00000006.safetensors")}
    posthoc(tmp_path, 0.08, tmp_path / CHECKPOINT)
    for change, words in CHANGES:
        tensors, about = read_tensors(path)
        before = dict(tensors), dict(about)
        change(tensors, about)
        write_tensors(path, tensors, about)
        with refused(words):
            posthoc(tmp_path, 0.08, tmp_path / CHECKPOINT)
        write_tensors(path, *before)
    posthoc(tmp_path, 0.08, tmp_path / CHECKPOINT)


def test_a_run_without_snapshots_is_refused(tmp_path: Path) -> None:
    list(run(tmp_path, snapshot_every=0, steps=3).steps())
    with refused("has no snapshots of averages, which ema_std=0.1 is made of: train it with"):
        posthoc(tmp_path, 0.1, tmp_path / CHECKPOINT)


def test_what_the_snapshots_cannot_tell_is_said(tmp_path: Path) -> None:
    list(run(tmp_path).steps())
    with pytest.warns(UserWarning, match="The profile of ema_std=0.005 is off by"):
        posthoc(tmp_path, 0.005, tmp_path / CHECKPOINT)


@pytest.mark.parametrize("std", [0, -0.1, 0.3, 0.999, 1])
def test_widths_that_no_profile_has(std: float) -> None:
    with refused("A profile's std lies|A profile's std must"):
        power_gamma(std)
    for stds in ([std], [0.05, [std]]):
        with refused("A profile's std "):
            TrainSettings(ema_stds=stds)  # type: ignore[arg-type]
    with refused("A profile's std "):
        sg.load("nowhere", ema_std=std)


@pytest.mark.parametrize("field", fields(TrainSettings), ids=lambda field: field.name)
def test_no_setting_of_another_kind_ends_in_a_traceback(field: Field[Any]) -> None:
    for value in (None, [], [[0.1]], [0.1, [0.2]], {}, {"a": 1}, "a", "0.5", True, math.nan):
        with contextlib.suppress(ValueError):
            TrainSettings(**{field.name: value})


@pytest.mark.parametrize("stds", [[], [0.1, 0.1], 0.1, None])
def test_lists_of_widths_are_checked(stds: object) -> None:
    with refused("train.ema_stds must be a list of different widths"):
        TrainSettings(ema_stds=stds)  # type: ignore[arg-type]


def test_two_words_are_refused() -> None:
    with refused("ema=0.9 is the decay of one average, and ema_std=0.1 the width of another"):
        sg.load("nowhere", ema=0.9, ema_std=0.1)
    with refused("ema_std=0.1 is of an average, but weights=raw are not averaged"):
        sg.load("nowhere", weights="raw", ema_std=0.1)


def test_no_average_is_of_no_step(tmp_path: Path) -> None:
    """Of one step it is the weights themselves."""
    net = Scale()
    model = sg.ScoreModel(net, sg.VPSDE())
    averages = Averages(model, [0.9], stds=[0.1])
    net.scale.data.fill_(3.0)
    averages.update(model)
    close(averages.copies[1].module.net.scale.detach(), 3.0)  # type: ignore[union-attr]
