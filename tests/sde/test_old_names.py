"""SDEs have their old names for one release, with a warning."""

from __future__ import annotations

from pathlib import Path

import pytest

import sdegen as sg
from tests.cases import refused

OLD = ("Cosine", "EDM", "Flow", "LearnedVP")


@pytest.mark.parametrize("name", OLD)
def test_an_sde_has_its_old_name_for_one_release(name: str) -> None:
    """At the top and in its room, with a warning at the line that asks for it."""
    for module in (sg, sg.sde):
        with pytest.warns(DeprecationWarning, match=f"{name} is called {name}SDE now") as seen:
            old = getattr(module, name)
        assert old is getattr(sg.sde, f"{name}SDE") and seen[0].filename == __file__
        assert name not in module.__all__
        with pytest.warns(DeprecationWarning, match=f"{name}SDE now") as seen:
            exec(f"from {module.__name__} import {name}", {"__name__": "someone"})
        assert {each.filename for each in seen} == {"<string>"}
    with pytest.raises(AttributeError, match="has no attribute 'Clfow'"):
        sg.sde.Clfow  # noqa: B018


def test_a_checkpoint_knows_its_sde_by_either_name() -> None:
    from sdegen.training.trainer import refuse_other

    path = Path("checkpoint")
    for room in ("sdegen", "sdegen.sde"):
        for name in OLD:
            old, new = ({"sde": {"_target_": f"{room}.{n}"}} for n in (name, f"{name}SDE"))
            refuse_other(path, old, new)
    with refused("made with sde._target_"):
        refuse_other(
            path, {"sde": {"_target_": "sdegen.EDMSDE"}}, {"sde": {"_target_": "sdegen.x"}}
        )
