"""Solvers of other packages: in the catalogue, in Hydra's groups, and by their names."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from importlib.metadata import EntryPoint, EntryPoints
from typing import Any

import pytest
import torch

import sdegen as sg
from sdegen.exact.distributions import exact_model
from sdegen.solvers import registry
from tests.cases import MIXTURE, normal, refused

MODEL, X = exact_model(MIXTURE, sg.VPSDE()), normal(3, 2)


@dataclass(frozen=True)
class Halved(sg.Solver):
    """DDIM in two halves.  After nobody.

    parts: more of them.
    """

    parts: int = 2
    traits = sg.solvers.Traits(order=1, needs_marginals=True)

    def step(self, p: Any, x: Any, t: Any, s: Any, memory: Any = None) -> sg.Step:
        return sg.DDIM().step(p, x, t, s)


@dataclass(frozen=True)
class Always:
    """The same for every budget."""

    def choose(self, model: Any, shape: Any, nfe: int) -> tuple[sg.Solver, str]:
        return sg.DDIM(), "karras"


@dataclass(frozen=True)
class Needs(sg.Solver):
    """Cannot be made of nothing."""

    what: Any
    traits = sg.solvers.Traits(order=1)

    def step(self, p: Any, x: Any, t: Any, s: Any, memory: Any = None) -> sg.Step:
        return sg.Step(x)


def factory() -> sg.Solver:
    """Made by a function."""
    return Halved(3)


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What a test registers is gone after it, and no entry point of this machine is seen."""
    monkeypatch.setattr(registry, "REGISTERED", dict(registry.REGISTERED))
    points(monkeypatch)
    yield
    registry.installed.cache_clear()


def points(monkeypatch: pytest.MonkeyPatch, **found: str) -> None:
    """As if packages with these entry points were installed."""
    known = EntryPoints(EntryPoint(name, value, registry.GROUP) for name, value in found.items())
    monkeypatch.setattr(registry, "entry_points", lambda group: known.select(group=group))
    registry.installed.cache_clear()


def composed(*overrides: str) -> Any:
    """The solver that a command line describes."""
    from hydra import compose, initialize_config_module

    from sdegen.cli.main import store_groups
    from sdegen.runs.build import build

    store_groups()
    with initialize_config_module("sdegen.conf", version_base="1.3"):
        return build(compose("sample", [*overrides, "run=x", "name=x"]).solver)


@pytest.mark.parametrize(
    "what", [Halved, Halved(2), lambda: Halved()], ids=["class", "value", "f"]
)
def test_what_is_registered_is_in_the_catalogue(what: Any) -> None:
    sg.solvers.register("halved", what, source="Nobody (2026)")
    entry = sg.solvers.catalogue()["halved"]
    assert entry.build() == Halved() and entry.source == "Nobody (2026)"
    want = sg.sample(MODEL, X, solver=sg.DDIM(), nfe=5)
    assert torch.equal(sg.sample(MODEL, X, solver="halved", nfe=5), want)
    assert composed("solver=halved") == Halved()
    assert sg.solvers.named("halved") == Halved()


def test_its_settings_are_the_command_lines() -> None:
    sg.solvers.register("halved", Halved)
    assert sg.solvers.catalogue()["halved"].source == "DDIM in two halves.  After nobody"
    assert composed("solver=halved", "solver.parts=5") == Halved(5)
    sg.solvers.register("tripled", factory)
    assert composed("solver=tripled") == Halved(3)


def test_a_class_that_is_not_registered_is_not_called() -> None:
    from sdegen.runs.build import build

    node = {"_target_": f"{__name__}.Halved", "parts": 2}
    with refused("packages="):
        build(node)
    sg.solvers.register("halved", Halved)
    assert build(node) == Halved(2)


def test_choosers_too() -> None:
    sg.solvers.register("always", Always())
    assert "always" in sg.solvers.choosers() and "always" not in sg.solvers.catalogue()
    want = sg.sample(MODEL, X, solver=sg.DDIM(), walk="karras", nfe=5)
    assert torch.equal(sg.sample(MODEL, X, solver="always", nfe=5), want)
    assert composed("solver=always") == Always()
    assert {"auto", "recommended"} <= sg.solvers.choosers().keys()
    assert composed("solver=auto", "solver.seeds=8") == sg.tuning.Auto(seeds=8)
    assert composed("solver=recommended") == sg.sampling.Recommended()


def test_a_name_that_is_taken_is_refused() -> None:
    for name in ("ddim", "auto", "recommended", "tuned"):
        with refused(f"Two solvers go by the name '{name}'.*Give one of them another"):
            sg.solvers.register(name, Halved)
    sg.solvers.register("halved", Halved)
    sg.solvers.register("halved", Halved)  # a notebook's cell, run twice
    with refused("Two solvers go by the name 'halved'"):
        sg.solvers.register("halved", Always)


@pytest.mark.parametrize(
    ("name", "what", "message"),
    [
        ("a b", Halved, "letters, digits and underscores"),
        (5, Halved, "letters, digits and underscores"),
        ("five", 5, "'five' is 5"),
        ("list", list, "'list' is \\[\\]"),
        ("maker", lambda: Halved, "'maker' is <class"),
        ("needs", Needs, "made without arguments, .*Needs says: .*what.*Register a function"),
    ],
)
def test_what_is_no_solver_is_refused(name: Any, what: Any, message: str) -> None:
    with refused(message):
        sg.solvers.register(name, what)


def test_an_installed_package_s_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    points(monkeypatch, halved=f"{__name__}:Halved", always=f"{__name__}:Always")
    assert sg.solvers.catalogue()["halved"].build() == Halved()
    assert "always" in sg.solvers.choosers()
    assert composed("solver=halved", "solver.parts=4") == Halved(4)
    assert sg.sample(MODEL, X, solver="halved", nfe=5).shape == X.shape
    sg.solvers.register("halved", Always)
    with pytest.warns(UserWarning, match="'halved' of .*Halved is left out: its name is taken"):
        assert "halved" in sg.solvers.choosers()


def test_an_entry_point_that_leads_nowhere_costs_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    points(monkeypatch, gone="no_such_package:Solver", halved=f"{__name__}:Halved")
    with pytest.warns(
        UserWarning, match="'gone' of no_such_package:Solver is left out: No module"
    ):
        known = sg.solvers.catalogue()
    assert "halved" in known and "gone" not in known


def test_an_entry_point_with_a_name_that_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    points(monkeypatch, ddim=f"{__name__}:Halved")
    with pytest.warns(UserWarning, match="'ddim' of .*Halved is left out: its name is taken"):
        assert sg.solvers.catalogue()["ddim"].cls is sg.DDIM


def test_what_has_no_name_of_its_own_takes_no_other_s_place() -> None:
    sg.solvers.register("a", partial(sg.DDIM, 0.5))
    with refused("Two solvers go by the name 'a'"):
        sg.solvers.register("a", partial(sg.Heun))
    for name in ("dopri5", "tuned"):
        with refused(f"Two solvers go by the name '{name}'"):
            sg.solvers.register(name, sg.DDIM)


def test_the_package_s_own_are_nodes_with_their_settings() -> None:
    for name, entry in sg.solvers.catalogue().items():
        node = entry.config()
        assert node["_target_"].startswith("sdegen.solvers.") and "name" not in node, name
