"""What is cited: every solver, SDE and grid, by the table that the docstrings' names lead to."""

from __future__ import annotations

import inspect
import re

import pytest

import sdegen as sg
from sdegen.guidance import CFG
from sdegen.sampling.citing import entries, papers_of
from sdegen.walks.grids import GRIDS
from tests.cases import ROOT, refused

OURS = ("Multistep", "AdaptiveMultistep", "focused", "AnisotropicVPSDE", "MarginalSDE")
"""What was made here, or is older than papers."""
LIBRARIES = ("scipy_dop853", "torchsde", "torchsde_euler", "torchsde_heun", "torchdiffeq_dopri8",
             "torchdiffeq_bosh3", "torchdiffeq_rk4", "torchdiffeq_adams")  # fmt: skip
"""Methods of other libraries, which are said to be theirs."""
CITED = re.compile(r"(?:[A-Z][a-z]+, )*[A-Z][\w-]+(?: & [A-Z][\w-]+| et al\.) \(\d{4}[ab]?\)")


def named_in(thing: object) -> set[str]:
    """The papers that a docstring names, whether the table has them or not."""
    return set(CITED.findall(" ".join((inspect.getdoc(thing) or "").split())))


@pytest.mark.parametrize("name", sg.solvers.catalogue())
def test_every_solver_has_its_paper(name: str) -> None:
    entry = sg.solvers.catalogue()[name]
    solver = entry.build()
    found = papers_of(solver)
    for paper in {*named_in(entry.cls), *CITED.findall(entry.source)}:
        assert any(paper.endswith(each) for each in found), paper  # after a method's own name
    classical = "Heun-Euler" in entry.source
    if not found:
        assert type(solver).__name__ in OURS or name in LIBRARIES or classical, name


def test_every_sde_grid_and_climb_has_its_paper() -> None:
    sdes = [getattr(sg.sde, n) for n in sg.sde.__all__ if n.endswith("SDE")]
    finished = [each for each in sdes if not inspect.isabstract(each)]
    climbs = [sg.walks.churn, sg.walks.restart, sg.walks.repaint]
    for each in (*finished, *GRIDS.values(), *climbs):
        assert named_in(each) - {"Rissanen et al. (2023)"} <= set(papers_of(each)), each
        assert papers_of(each) or each.__name__ in OURS, each
    assert len(finished) > 7 and len(GRIDS) > 7


def test_the_table_is_that_of_the_references() -> None:
    """Every entry is a paper of the page, with its year, and well formed."""
    page = (ROOT / "docs" / "references.md").read_text(encoding="utf-8")
    keys = []
    for paper, text in entries().items():
        (line,) = re.findall(rf"^- {re.escape(paper)}\. (.*)$", page, re.M)
        (year,) = re.findall(r"year = \{(\d+)\}", text)
        assert year == re.search(r"\d{4}", paper)[0]  # type: ignore[index]
        keys += re.findall(r"^@\w+\{(\w+),$", text, re.M)
        assert text.count("{") == text.count("}") and "title = {" in text
        (told,) = re.findall(r"^  title = \{(.*)\},$", text, re.M)
        words = re.sub(r"[^a-z ]", "", re.sub(r"\{\\.(\w|\{\w\})\}|--", " ", told).lower()).split()
        same = re.sub(r"[^a-z ]", "", line.replace("-", " ").lower())
        assert sum(word in same for word in words) >= 0.6 * len(words), (paper, told, line)
        if "arXiv:" in line:
            assert re.search(r"arXiv:([\d.]+\d)", line)[1] in text  # type: ignore[index]
        first = paper.split()[0].strip(",")
        ascii_ = (
            re.sub(r'\{\\"([aou])\}', r"\1e", text).replace("{\\ss}", "ss").replace("aeae", "aa")
        )
        assert first in ascii_, paper
    assert len(set(keys)) == len(keys) == len(entries()) > 40


def test_a_guided_model_is_cited_with_all_it_is_made_of() -> None:
    model = sg.ScoreModel(lambda x, t, y=None: x, sg.FlowSDE(), predicts="velocity")
    guided = CFG(model.given(y=None), 2.0, without={"y": None})
    said = sg.cite(guided, "dpmpp", sg.DDIM(), "karras", sg.dsm_loss, sg.solvers.Heun())
    for key in (
        "ho2022free",
        "lipman2023flow",
        "lu2022dpmsolverpp",
        "song2021ddim",
        "song2021score",
    ):
        assert said.count(f"{{{key},") == 1
    assert said.count("{karras2022edm,") == 1  # of two that name it
    assert (
        "% DDIM: Song, Meng & Ermon (2021)" in said and f"version = {{{sg.__version__}}}" in said
    )
    assert "% Multistep: no paper is named" in sg.cite(sg.Multistep())
    with refused("There is no solver 'karas'"):
        sg.cite("karas")
