"""Conditions say their axis; subclasses say what they change."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

import sdegen as sg
from sdegen.programs.remembered import programmed
from tests.cases import EVERY_SOLVER, TIGHT, close, normal, refused

SDE = sg.VPSDE()
x_T = normal(4, 2)


# ------------------------------------------------------------------ conditions say their axis


class Adds(nn.Module):
    """A network with a label for each sample and a context that is the same for all."""

    def forward(self, x: Tensor, t: Tensor, y: Tensor, context: Tensor) -> Tensor:
        assert len(y) == len(x) and context.shape == (4, 5)
        return x * 0.1 + y[:, None] + context.mean()


def test_a_shared_condition_is_not_cut_by_coincidence() -> None:
    """A context (4, 5) beside a batch of 4 was cut to (1, 5)."""
    context, y = torch.ones(4, 5), torch.arange(4.0)
    model = sg.ScoreModel(Adds(), SDE).given({"context": context}, y=y)
    part = model.take(torch.tensor([2]))
    assert part.conditions["context"] is context and part.conditions["y"].tolist() == [2.0]
    assert model.conditions["y"] is y and model.conditions["context"] is context
    x = x_T.float()
    got = sg.sample(model, x, solver=TIGHT[0])
    alone = sg.sample(part, x[2:3], solver=TIGHT[0])
    close(got[2:3], alone, rtol=1e-6)


def test_conditions_of_another_length_are_refused() -> None:
    model = sg.ScoreModel(Adds(), SDE).given({"context": torch.ones(4, 5)}, y=torch.ones(3))
    with refused(r"condition y has 3 values, but the batch has 4 samples.*given\(dict\(y=...\)\)"):
        sg.sample(model, x_T.float(), solver=sg.DDIM(), steps=2)


def test_nested_conditions_are_cut() -> None:
    model = sg.ScoreModel(lambda x, t, c: x, SDE)
    both = model.given(c={"a": torch.arange(3), "b": [torch.arange(6).reshape(3, 2), 1.0, None]})
    part = both.take(torch.tensor([1])).conditions["c"]
    assert part["a"].tolist() == [1] and part["b"][0].tolist() == [[2, 3]]
    assert part["b"][1:] == [1.0, None]
    with refused("condition c has 3 values"):
        both(normal(2, 2), 0.5)


def test_a_condition_given_again_has_the_axis_it_says_last() -> None:
    model = sg.ScoreModel(lambda x, t, c: x, SDE)
    shared = model.given({"c": torch.ones(5)})
    assert shared.take(torch.tensor([0])).conditions["c"].shape == (5,)
    assert shared.given(c=torch.ones(3)).take(torch.tensor([0])).conditions["c"].shape == (1,)


# --------------------------------------------------------------------------- subclasses


class Halved(sg.ScoreModel):
    """A model that changes its output."""

    def output(self, x: Tensor, level: Any) -> Tensor:
        return super().output(x, level) / 2


class Viewed(sg.ScoreModel):
    """A model whose views are made by code of its own."""

    def forward(self, x: Tensor, t: Any) -> Any:
        seen = super().forward(x, t)
        return replace(seen, F=seen.F / 2)


def test_a_subclass_that_changes_its_output_is_asked_by_all() -> None:
    def half(x: Tensor, t: Tensor) -> Tensor:
        return torch.tanh(x) / 2

    model, same = Halved(lambda x, t: torch.tanh(x), SDE), sg.ScoreModel(half, SDE)
    close(model(x_T, 0.5).eps, same(x_T, 0.5).eps)
    assert programmed(sg.DDIM(), model, 0.0, sg.walks.log_snr(SDE, 3)) is not None
    for name in ("ddim", "heun", "adaptive_dopri5_lam"):
        how: dict[str, Any] = {} if name == "adaptive_dopri5_lam" else {"steps": 5}
        a, b = (sg.sample(m, x_T, solver=EVERY_SOLVER[name], **how) for m in (model, same))
        close(a, b)


def test_a_subclass_with_views_of_its_own_runs_in_the_plain_loop_alone() -> None:
    model = Viewed(lambda x, t: torch.tanh(x), SDE)
    same = sg.ScoreModel(lambda x, t: torch.tanh(x) / 2, SDE)
    close(
        sg.sample(model, x_T, solver=sg.DDIM(), steps=5),
        sg.sample(same, x_T, solver=sg.DDIM(), steps=5),
    )
    program = sg.programs.traced(sg.DDIM(), SDE, sg.walks.log_snr(SDE, 3))
    with refused("Viewed overrides forward.*override output"):
        list(program.steps(model, x_T))


def test_overriding_what_nobody_asks_is_refused() -> None:
    with pytest.raises(
        TypeError, match=r"Old.call is asked by nobody: override output\(x, level\)"
    ):

        class Old(sg.ScoreModel):
            def call(self, x: Tensor, level: Any) -> Tensor:
                return x


def test_conditions_of_every_kind_are_cut_and_checked() -> None:
    """Arrays, lists of plain values and tuples with names, as tensors are."""
    import numpy as np

    class Named(NamedTuple):
        a: Tensor
        b: float

    model = sg.ScoreModel(lambda x, t, **c: x, SDE)
    kinds: dict[str, Any] = {
        "array": np.arange(3),
        "prompt": ["a", "b", "c"],
        "scale": [0.1, 0.2, 0.3],
        "named": Named(torch.arange(3), 2.0),
    }
    part = model.given(**kinds).take(torch.tensor([2, 0])).conditions
    assert part["array"].tolist() == [2, 0] and part["prompt"] == ["c", "a"]
    assert part["scale"] == [0.3, 0.1] and part["named"].a.tolist() == [2, 0]
    for name, value in kinds.items():
        with refused(f"condition {name} has 3 values, but the batch has 5 samples"):
            model.given(**{name: value})(normal(5, 2), 0.5)
