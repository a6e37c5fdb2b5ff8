"""Solvers say what they are once, and every class is abstract or final."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass, is_dataclass
from inspect import isabstract
from typing import Any

import pytest

import sdegen as sg
import sdegen.solvers
from sdegen.solvers.registry import RENAMED
from tests.cases import EVERY_SOLVER

SETTINGS = {
    "eta",
    "presets",
    "check",
    "corrector",
    "stage_noise",
    "euler_at_final",
    "lower_order_final",
    "skip_type",
    "longest",
}
"""What has a default that a class may replace: values, and the refusal of a very equation."""


def classes() -> Iterator[type[sg.Solver]]:
    """Every solver class of the package, abstract ones too."""
    for info in pkgutil.iter_modules(sdegen.solvers.__path__):
        module = importlib.import_module(f"sdegen.solvers.{info.name}")
        for cls in vars(module).values():
            own = isinstance(cls, type) and cls.__module__ == module.__name__
            if own and issubclass(cls, sg.Solver):
                yield cls


CLASSES = list(classes())
every_class = pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)


@every_class
def test_a_class_is_abstract_or_final(cls: type[sg.Solver]) -> None:
    if isabstract(cls):
        assert cls is sg.Solver or any(issubclass(c, cls) for c in CLASSES if c is not cls)
    else:
        assert is_dataclass(cls) and not [
            c for c in CLASSES if issubclass(c, cls) and c is not cls
        ]
    assert len([c for c in cls.__mro__ if c in CLASSES]) <= 3  # Solver, a family, a solver


@every_class
def test_only_what_is_abstract_is_overridden(cls: type[sg.Solver]) -> None:
    mine = {name for name in vars(cls) if not name.startswith("_")} - SETTINGS
    for parent in cls.__mro__[1:]:
        if parent in CLASSES:
            there = {name for name in mine if name in vars(parent)}
            assert there <= parent.__abstractmethods__, (parent, there)


@pytest.mark.parametrize("name", EVERY_SOLVER)
def test_traits_agree_with_themselves(name: str) -> None:
    solver = EVERY_SOLVER[name]
    traits = solver.traits
    assert isinstance(traits, sg.Traits) and traits == solver.traits
    assert (traits.calls == 0) == traits.adaptive
    assert not (traits.adaptive and not traits.why_not_linear)
    assert solver.calls(3) == 3 * traits.calls + traits.calls_to_start


def test_an_author_has_to_say_the_order() -> None:
    with pytest.raises(TypeError, match="order"):
        sg.Traits()  # type: ignore[call-arg]


def test_a_solver_without_traits_cannot_be_made() -> None:
    @dataclass(frozen=True)
    class Silent(sg.Solver):
        def step(self, p: Any, x: Any, t: Any, s: Any, memory: Any = None) -> sg.Step:
            return sg.Step(x)

    with pytest.raises(TypeError, match="traits"):
        Silent()  # type: ignore[abstract]


def test_the_attributes_of_before_are_refused_by_name() -> None:
    with pytest.raises(
        TypeError, match=r"Old sets marginals, order, .* traits = sg.Traits\(order"
    ):

        class Old(sg.Solver):
            order, marginals = 2, True


def test_an_abstract_class_and_a_setting_called_order_are_fine() -> None:
    class Family(sg.Solver):
        """Says nothing yet."""

    @dataclass(frozen=True)
    class Mine(Family):
        order: int = 3

        @property
        def traits(self) -> sg.Traits:
            return sg.Traits(order=self.order)

        def step(self, p: Any, x: Any, t: Any, s: Any, memory: Any = None) -> sg.Step:
            return sg.Step(x)

    assert isabstract(Family) and Mine(2).traits.order == 2 and Mine().calls(4) == 4


@pytest.mark.parametrize("old", RENAMED)
def test_commands_take_the_old_names(old: str) -> None:
    from hydra import compose, initialize_config_module

    from sdegen.cli.main import store_groups
    from sdegen.runs.build import build

    store_groups()
    with initialize_config_module("sdegen.conf", version_base="1.3"):
        cfg = compose("sample", [f"solver={old}", "run=x", "name=x"])
    assert build(cfg.solver) == EVERY_SOLVER[RENAMED[old]]
