"""Choosers: a solver and a walk for a model and a budget, by value or by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch

import sdegen as sg
from sdegen.exact.distributions import exact_model
from sdegen.sampling import Chooser, Plan, Recommended
from sdegen.tuning import Auto
from tests.cases import MIXTURE, Plain, normal, refused

MODEL = exact_model(MIXTURE, sg.VPSDE())
X = normal(3, 2)


@dataclass(frozen=True)
class Says:
    """A chooser that says what it was given, and notes what it is asked."""

    answer: Any
    asked: list[Any]

    def choose(self, model: sg.ScoreModel, shape: tuple[int, ...], nfe: int) -> Any:
        """The answer."""
        self.asked.append((shape, nfe))
        return self.answer


def test_names_are_solvers() -> None:
    for name in ("dpmpp", "ddim", "heun"):
        solver = sg.solvers.catalogue()[name].build()
        got, want = (sg.sample(MODEL, X, solver=each, nfe=6) for each in (name, solver))
        assert torch.equal(got, want)
    assert torch.equal(
        sg.encode(MODEL, X, solver="heun", steps=5), sg.encode(MODEL, X, solver=sg.Heun(), steps=5)
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("dpmp", "no solver 'dpmp': did you mean dpmpp"),
        ("recomended", "did you mean recommended"),
        ("aut", "did you mean auto"),
        ("UniPC", "did you mean unipc"),
        ("DPMPP", "did you mean dpmpp"),
        ("!", "no solver '!'. All names are in sg.solvers.catalogue"),
    ],
)
def test_a_misspelt_name_is_told_the_nearest(name: str, message: str) -> None:
    with refused(message):
        sg.sample(MODEL, X, solver=name, nfe=5)


def test_what_is_no_solver_is_refused() -> None:
    with refused(r"A solver is a Solver, .*\(did you mean DDIM\(\)\?\)"):
        sg.sample(MODEL, X, solver=sg.DDIM, nfe=5)  # type: ignore[arg-type]
    with refused("A solver is a Solver, .* but it is 5"):
        sg.sample(MODEL, X, solver=5, nfe=5)  # type: ignore[arg-type]


def test_a_chooser_is_asked_once_for_the_budget() -> None:
    chooser = Says((sg.Heun(), "karras"), [])
    assert isinstance(chooser, Chooser)
    solution = sg.solve(MODEL, (3, 2), solver=chooser, nfe=9, denoise=True, seed=0)
    assert chooser.asked == [((3, 2), 8)]
    want = sg.solve(MODEL, (3, 2), solver=sg.Heun(), walk="karras", nfe=9, denoise=True, seed=0)
    assert torch.equal(solution.x, want.x) and solution.choice is chooser.answer
    assert solution.solver == sg.Heun() and want.choice is None


def test_a_chooser_with_a_walk_of_none_or_of_its_own() -> None:
    for walk in (None, sg.walks.uniform(MODEL.sde, 4), sg.walks.karras):
        how = {"nfe": 4} if walk is not sg.walks.karras else {"nfe": 5}
        got = sg.sample(MODEL, X, solver=Says((sg.DDIM(), walk), []), **how)  # type: ignore[arg-type]
        how = {} if isinstance(walk, torch.Tensor) else how  # times are an answer to the budget
        want = sg.sample(MODEL, X, solver=sg.DDIM(), walk=walk, **how)  # type: ignore[arg-type]
        assert torch.equal(got, want)


@pytest.mark.parametrize("answer", [None, sg.DDIM(), (sg.DDIM(),), ("ddim", None), 3, (1, 2, 3)])
def test_nonsense_is_refused_with_the_remedy(answer: Any) -> None:
    with refused(r"Says.choose returned .*: return \(solver, walk\)"):
        sg.sample(MODEL, X, solver=Says(answer, []), nfe=5)


@pytest.mark.parametrize("wrong", [{"steps": 5}, {}, {"nfe": 5, "walk": "karras"}])
def test_a_chooser_is_for_a_budget(wrong: dict[str, Any]) -> None:
    with refused("Says finds a solver and a walk for a budget: give nfe alone"):
        sg.sample(MODEL, X, solver=Says((sg.DDIM(), None), []), **wrong)


@pytest.mark.parametrize(
    "how",
    [{"nfe": 12}, {"steps": 7}, {"nfe": 9, "walk": "karras"}, {"walk": [1.0, 0.4, 0.1, 1e-3]}],
    ids=str,
)
def test_what_is_recommended_is_the_default(how: dict[str, Any]) -> None:
    want = sg.sample(MODEL, X, **how)
    for named in ("recommended", Recommended()):
        assert torch.equal(sg.sample(MODEL, X, solver=named, **how), want)
    calls = how.get("nfe") or how.get("steps") or 3
    assert Plan.of(MODEL, **how).solver == sg.recipes.recommended(calls)["solver"]


def test_what_is_recommended_needs_marginals() -> None:
    with refused("usual solver needs alpha and sigma"):
        sg.sample(sg.ScoreModel(lambda x, t: x, Plain(), "score"), X, nfe=5)


def test_auto_is_a_chooser_with_settings() -> None:
    solution = sg.solve(MODEL, (3, 2), solver=Auto(seeds=8, fine=20), nfe=4, seed=0)
    solver, walk = solution.choice
    assert solution.solver == solver and solution.choice.seeds == 8
    assert str(solution.choice).startswith("auto: ") and walk in sg.walks.GRIDS
