"""What a configuration's guidance may ask of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import sdegen as sg
from sdegen.guidance import CFG
from sdegen.runs.folder import Run
from sdegen.runs.guiding import guide_of, with_null
from tests.cases import refused
from tests.labelled import SDE, X, Y, labelled

INNER = {"_target_": "sdegen.dsm_loss"}
GUIDED = {"_target_": "sdegen.guidance.CFG", "_partial_": True, "scale": 2.0, "without": None}


def dropping(**how: Any) -> dict[str, Any]:
    return {"_target_": "sdegen.losses.dropped", "p": 0.1, "without": None, "loss": INNER, **how}


def trained(loss: dict[str, Any], counts: list[int]) -> Run:
    return Run(Path("r"), labelled(SDE), {"loss": loss}, [2], counts, (), 1)


def test_the_label_of_no_class_is_their_number() -> None:
    assert with_null(dropping(), {"y": 3}, True)["without"] == {"y": 3}
    deeper = {"_target_": "sdegen.losses.dequantised", "loss": dropping()}
    assert with_null(deeper, {"y": 3}, True)["loss"]["without"] == {"y": 3}
    told = dropping(without={"c": 0.0})
    assert with_null(told, {"y": 3}, True) == told
    assert with_null(dropping(), None, False) == INNER  # nothing to drop
    with refused("loss=dropped drops the class, but the data have none"):
        with_null(dropping(), None, True)


def test_a_run_is_guided_as_it_was_trained() -> None:
    run = trained(dropping(without={"y": 3}), [2, 2, 2])
    model = labelled(SDE).given(y=Y)
    got = guide_of(GUIDED, run)(model)
    assert isinstance(got, CFG) and got.without == {"y": 3}
    assert guide_of({}, run)(model) is model is guide_of(None, run)(model)
    both = {"cfg": GUIDED, "top": {"_target_": "sdegen.guidance.Thresholded", "_partial_": True}}
    both["top"] |= {"data_range": [-1, 1]}
    assert isinstance(guide_of(both, run)(model), sg.guidance.Thresholded)
    assert guide_of(GUIDED, run)(model).output(X, SDE(0.5)).shape == X.shape


@pytest.mark.parametrize(
    ("loss", "node", "says"),
    [
        (INNER, GUIDED, "with y = 3, as which the run was never trained: it dropped nothing"),
        (dropping(p=0, without={"y": 3}), GUIDED, "it dropped nothing"),
        (dropping(without={"y": 7}), GUIDED, "with y = 3, .* it dropped y by 7"),
        (dropping(without={"c": 0.0}), GUIDED, "it dropped c by 0.0"),
        (INNER, {**GUIDED, "without": {"y": 3}}, "it dropped nothing"),
        (INNER, {"scale": 3}, "guidance is one of its group, as guidance=cfg, or several by name"),
    ],
)
def test_what_it_never_was_is_refused(loss: Any, node: Any, says: str) -> None:
    with refused(says):
        guide_of(node, trained(loss, [2, 2, 2]))
    with refused("needs a model that takes a class|guidance is one of|it dropped nothing"):
        guide_of(node, trained(INNER, []))


def test_a_loss_of_ones_own_may_be_trusted() -> None:
    run = trained({"_target_": "mine.loss"}, [2, 2])
    assert guide_of({**GUIDED, "without": {"y": 3}}, run)(labelled(SDE).given(y=Y)).cost == 2
