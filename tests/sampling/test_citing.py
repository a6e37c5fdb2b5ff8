"""What is cited: every solver, SDE and grid, by the table that the docstrings' names lead to."""

from __future__ import annotations

import inspect
import re

import pytest
import torch

import sdegen as sg
from sdegen.guidance import CFG
from sdegen.sampling.citing import entries, papers_of, unknown
from sdegen.walks.grids import GRIDS
from tests.cases import ROOT, refused

OURS = (
    "Multistep",
    "AdaptiveMultistep",
    "eased",
    "focused",
    "straight",
    "AnisotropicVPSDE",
    "MarginalSDE",
)
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
    climbs = [sg.walks.churn, sg.walks.restart, sg.walks.repaint, sg.walks.multistep]
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
        later = re.findall(r"[A-Z]+ (\d{4})\b", line)  # where it came out after its preprint
        assert year == (later or re.findall(r"\d{4}", paper))[0]
        keys += re.findall(r"^@\w+\{(\w+),$", text, re.M)
        assert text.count("{") == text.count("}") and "title = {" in text
        (told,) = re.findall(r"^  title = \{(.*)\},$", text, re.M)
        words = re.sub(r"[^a-z ]", "", re.sub(r"\{\\.(\w|\{\w\})\}|-+", " ", told).lower()).split()
        same = re.sub(r"[^a-z ]", "", line.replace("-", " ").lower())
        assert sum(word in same for word in words) >= 0.6 * len(words), (paper, told, line)
        if "arXiv:" in line:
            assert re.search(r"arXiv:([\d.]+\d)", line)[1] in text  # type: ignore[index]
        first = paper.split()[0].strip(",")
        ascii_ = (
            re.sub(r'\{\\"([aou])\}', r"\1e", text).replace("{\\ss}", "ss").replace("aeae", "aa")
        )
        assert first in re.sub(r"\{\\'(\w)\}", r"\1", ascii_), paper
    assert len(set(keys)) == len(keys) == len(entries()) > 40


def test_every_public_name_has_the_papers_that_it_names() -> None:
    """None is dropped: every paper that a public docstring names is in the table."""
    seen = 0
    for module in sg.ROOMS:
        for name in module.__all__:
            thing = getattr(module, name)
            if inspect.isclass(thing) or inspect.isfunction(thing):
                assert unknown(thing) == [], (module.__name__, name)
                assert named_in(thing) - {"Rissanen et al. (2023)"} <= set(papers_of(thing)), name
                seen += bool(papers_of(thing))
    assert seen > 100


def test_what_the_table_lacks_is_named() -> None:
    def mine() -> None:
        """As Nobody et al. (2031) and Karras et al. (2022) have it."""

    said = sg.cite(mine)
    assert "% mine: Karras et al. (2022); Nobody et al. (2031) (not in sdegen's table)" in said
    assert "no paper is named" not in said


@pytest.mark.parametrize("wrong", [3, None, {"a": 1}, object()])
def test_what_is_nothing_of_ours_is_refused(wrong: object) -> None:
    with refused("cite takes classes, functions, objects of sdegen and names"):
        sg.cite(wrong)


def test_times_name_no_paper_and_choosers_say_what_they_are() -> None:
    for times in (sg.walks.levels(sg.VPSDE(), [0.9, 0.1]), torch.linspace(1, 0.1, 4)):
        with refused("cite takes a grid's name or function for a walk"):
            sg.cite(times)
    assert "chooses a solver and a walk" in sg.cite("recommended")


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
