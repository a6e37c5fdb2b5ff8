"""A network that is compiled: what is saved of it, and where no compiler works."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from sdegen.networks import MLP
from sdegen.training import TrainSettings
from sdegen.training.checkpoint import CHECKPOINT
from sdegen.training.compiling import compile_network
from tests.cases import refused
from tests.trainers import trainer


class Compiler:
    """In the place of torch.compile: it lets everything be, and counts."""

    def __init__(self) -> None:
        self.made: list[Any] = []
        self.calls = 0

    def __call__(self, function: Callable[..., Any], **how: Any) -> Callable[..., Any]:
        self.made.append(function)

        def compiled(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            return function(*args, **kwargs)

        return compiled


def same(a: Path, b: Path) -> bool:
    """Whether two runs have the same checkpoint, name by name and bit by bit."""
    one, two = load_file(a / CHECKPOINT), load_file(b / CHECKPOINT)
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


def test_the_network_of_the_step_is_compiled_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    list(trainer(tmp_path / "plain").steps())
    compiler = Compiler()
    monkeypatch.setattr(torch, "compile", compiler)
    run = trainer(tmp_path / "r", compile=True)
    list(run.steps())
    assert len(compiler.made) == 2  # what tells whether it works, and the network
    assert compiler.calls == 1 + 12
    run.averaged(torch.ones(1, 2), 0.5)
    assert compiler.calls == 13
    assert same(tmp_path / "plain", tmp_path / "r")


@pytest.mark.parametrize("first", [True, False])
def test_a_compiled_run_goes_on_uncompiled_and_the_reverse(
    first: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    list(trainer(tmp_path / "plain").steps())
    monkeypatch.setattr(torch, "compile", Compiler())
    list(trainer(tmp_path / "r", compile=first, steps=6).steps())
    again = trainer(tmp_path / "r", compile=not first)
    assert again.step == 6
    list(again.steps())
    assert same(tmp_path / "plain", tmp_path / "r")


def test_where_no_compiler_works_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: Any, **how: Any) -> Any:
        raise RuntimeError("\nNo C++ compiler found.\nSee the log.")

    monkeypatch.setattr(torch, "compile", broken)
    with refused(r"torch.compile does not work here \(No C\+\+ compiler found\): install"):
        trainer(tmp_path / "r", compile=True)
    # A compiler that fails when it is called for the first time, as the usual one does.
    monkeypatch.setattr(torch, "compile", lambda function: broken)
    with refused("torch.compile does not work here"):
        compile_network(nn.Linear(2, 2), torch.device("cpu"))
    with refused("compiles a network that is a module"):
        compile_network(torch.sin, torch.device("cpu"))


@pytest.mark.parametrize("name", ["compile", "checkpointing"])
def test_it_is_true_or_false(name: str) -> None:
    with refused(f"train.{name} must be true or false, not 1"):
        TrainSettings(**{name: 1})  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own, in its compiler
def test_a_really_compiled_run_trains_as_another(tmp_path: Path) -> None:
    """To rounding, which Adam makes larger; and it goes on bit for bit as it was compiled."""
    list(trainer(tmp_path / "plain").steps())
    how: dict[str, Any] = {"compile": True, "ema": [0.9, 0.5]}
    list(trainer(tmp_path / "whole", **how).steps())
    list(trainer(tmp_path / "part", **how, steps=5).steps())
    list(trainer(tmp_path / "part", **how).steps())
    assert same(tmp_path / "whole", tmp_path / "part")
    plain = MLP(dim=2, width=16, depth=1).state_dict()
    found = load_file(tmp_path / "whole" / CHECKPOINT)
    assert {f"model.net.{k}" for k in plain} < found.keys()
    other = load_file(tmp_path / "plain" / CHECKPOINT)
    for k in plain:
        torch.testing.assert_close(
            found[f"model.net.{k}"], other[f"model.net.{k}"], rtol=1e-2, atol=1e-3
        )
