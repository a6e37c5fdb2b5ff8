"""Commands made of configurations lead back to the same configurations."""

from __future__ import annotations

import shlex
from typing import Any

import pytest

from sdegen.cli.main import store_groups
from sdegen.report.commands import command, overrides, written
from sdegen.report.run import GROUPS

TYPED = [
    "solver=ddim nfe=20 seed=3 classes=[1,2] guidance=cfg guidance.scale=3.5",
    "solver=dpmpp solver.order=3 walk=karras walk.power=5 steps=7 eta=0.0 n=64",
    "task=inpaint observation=dps draws=2 nfe=8",
    "task=edit start=0.3 nfe=8",
]


def composed(name: str, said: list[str]) -> dict[str, Any]:
    """The configuration of a command, as its results keep it."""
    from hydra import compose, initialize_config_module
    from omegaconf import OmegaConf

    store_groups()
    with initialize_config_module("sdegen.conf", version_base="1.3"):
        cfg = compose(name, [*said, "name=x"])
    plain: Any = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    return plain


@pytest.mark.parametrize("typed", TYPED)
def test_a_command_leads_back_to_its_configuration(typed: str) -> None:
    config = composed("sample", ["run=outputs/a b", *typed.split()])
    said = command("sample", config, GROUPS["sample"])
    assert said is not None
    first, *again = shlex.split(said)
    assert first == "sdegen-sample" and again[0].startswith("run=")
    assert composed("sample", again) == config
    assert len(again) <= len(typed.split()) + 1  # and says no more than was typed


def test_evaluations_too() -> None:
    typed = ["run=x", "n=7", "solver=heun", "steps=5", "data=moons"]
    config = composed("evaluate", typed)
    said = command("evaluate", config, GROUPS["evaluate"])
    assert said is not None and composed("evaluate", shlex.split(said)[1:]) == config


@pytest.mark.parametrize("name", ["evaluate", "sample"])
def test_nothing_chosen_is_the_plain_command(name: str) -> None:
    config = composed(name, ["run=x"])
    said = command(name, config, GROUPS[name])
    assert said == f"sdegen-{name} run=x"


@pytest.mark.parametrize("value", ["null", "true", "7", "1e-3", "007", "a b", "it's", "nan"])
def test_strings_are_read_back_as_strings(value: str) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    read = OverridesParser.create().parse_override(f"key={written(value)}").value()
    assert str(read) == value and isinstance(read, str)


def test_what_no_choice_makes_has_no_command() -> None:
    assert overrides("solver", {"_target_": "mine.Solver"}, "dpmpp") is None
    assert (
        command("sample", {"run": "x", "walk": {"_target_": "mine.walk"}}, {"walk": "x"}) is None
    )
    assert written([None, True, 0.5, "a b", {"x": 1}]) == "[null,true,0.5,'a b',{x:1}]"
