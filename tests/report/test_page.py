"""The report of points that were made up: what it says, what it counts, and how it is set."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from sdegen.bench.results import Cell, Choice, Results, load, why_apart
from sdegen.report import answers, figures, markup, page, tables
from sdegen.report.markup import Entry
from sdegen.report.standings import cells_of, fixed, freely, pairs
from tests.cases import refused
from tests.points import point, written


def made(tmp_path: Path, *points: dict[str, Any]) -> Results:
    """A folder of points, loaded."""
    return load(written(tmp_path, **{f"p{i}": p for i, p in enumerate(points)}))


def noisy(solver: str, nfe: int, **more: Any) -> dict[str, Any]:
    """A point of a sampler with noise."""
    far = {"sliced": 0.5 / nfe}
    return point(
        "sdegen", solver, nfe, 0.0, **{"kind": "law", "errors": far, "floor": far, **more}
    )


RIVALS = (
    ("sdegen", "recommended", (0.1, 0.02)),
    ("sdegen", "mine", (0.4, 0.03)),
    ("other", "early", (0.2, 0.2)),
    ("other", "late", (0.8, 0.01)),
)


@pytest.fixture
def rivals(tmp_path: Path) -> Results:
    """Four methods on two SDEs at two budgets."""
    return made(
        tmp_path,
        *(
            point(library, solver, nfe, error, settings={"sde": sde})
            for (library, solver, errors), sde in product(RIVALS, ("vp", "edm"))
            for nfe, error in zip((5, 10), errors, strict=True)
        ),
    )


def test_a_side_that_chooses_anew_at_every_budget(rivals: Results) -> None:
    """By hand: the best errors are 0.1 and 0.01, the others' 0.2 and 0.01, ours 0.1 and 0.02."""
    errors = rivals.errors()
    cells = cells_of(errors)
    assert freely(errors, cells, False) == pytest.approx((2 * 1) ** 0.5)
    assert freely(errors, cells, True) == pytest.approx((1 * 2) ** 0.5)
    assert freely({c: row for c, row in errors.items() if c.ours}, cells, False) is None
    shown = tables.contenders(fixed(errors, cells))
    told = {name: tables.ratio_of(errors, cells, which) for name, which in shown.items()}
    assert told == pytest.approx({
        figures.RULE: (1 * 2) ** 0.5,
        figures.MINE: (4 * 3) ** 0.5,
        figures.THEIRS: (8 * 1) ** 0.5,
        figures.FREE["sdegen"]: 2**0.5,
        figures.FREE["the others"]: 2**0.5,
    })  # fmt: skip
    text = answers.freedom(errors, cells, shown)
    assert "0.50 times the error of the others' best solver and walk, 1.00 times" in text


def test_where_ours_is_behind_is_listed_in_full(rivals: Results, tmp_path: Path) -> None:
    errors = rivals.errors()
    cells = cells_of(errors)
    late = [p for p in pairs(errors, cells) if p.late]
    assert [p.cell for p in late] == [Cell("mixture", sde, 10) for sde in ("vp", "edm")]
    assert [p.ratio for p in late] == pytest.approx([2, 2])
    told = answers.behind(errors, cells)
    assert "In 2 of 4 combinations." in told and told.count("<tr>") == 1 + 2
    ours = {c: row for c, row in errors.items() if c.ours or c.solver == "early"}
    assert "In none of 4 combinations." in answers.behind(ours, cells)


def test_points_apart_are_counted_and_shown(tmp_path: Path) -> None:
    steps = point("sdegen", "a", 5, 0.25)
    steps["settings"]["steps"] = steps["settings"].pop("nfe")
    results = made(
        tmp_path,
        point("sdegen", "a", 5, 0.5),
        point("sdegen", "a", 5, 0.75, settings={"dtype": "float32", "device": "cpu"}),
        point("sdegen", "a", 5, 1.0, settings={"device": "cuda"}),
        steps,
    )
    assert [len(row) for row in results.errors().values()] == [1]
    assert sorted(map(why_apart, results.aside)) == [
        "for a number of steps instead of network calls", "in float32", "on cuda",
    ]  # fmt: skip
    said = page.head(results)
    assert "4 points (1 in float32; 1 on cuda; 1 for a number of steps" in said
    rows = re.findall(r"<tr>.*?</tr>", page.aside_part(results))[1:]
    assert len(rows) == 3 and all(row.endswith("<td>0.50</td></tr>") for row in rows)
    assert sum("0.75" in row for row in rows) == 1 and sum("5 steps" in row for row in rows) == 1


def test_weak_and_strong_errors_by_walk_and_no_smaller_than_what_is_known(tmp_path: Path) -> None:
    strong = {"median": 1e-12, "agreement": 1e-3}
    steps = noisy("a", 8, strong=strong)
    del steps["settings"]["nfe"]
    steps["settings"]["steps"] = 4
    results = made(
        tmp_path,
        noisy("a", 5, strong=strong, weak={"variance": 0.25}),
        noisy("a", 5, strong={**strong, "median": 0.5}, settings={"walk": "karras"}),
        steps,
    )
    cell = Cell("mixture", "vp", 5)
    equal, karras = (Choice("sdegen", "a", walk) for walk in ("log_snr", "karras"))
    assert results.strong() == {equal: {cell: 1e-3}, karras: {cell: 0.5}}
    text = page.weak_and_strong(results).replace("<wbr>", "")
    assert "a / log_snr" in text and "a / karras" in text and "Brownian path" in text


def test_versions_and_commits_are_said_once(tmp_path: Path) -> None:
    about = {"sdegen": "0.1", "python": "3.11", "machine": "a machine"}
    commits = ("aaaaaaaaaaaa", "aaaaaaaaaaaa-dirty", None, "b", "c", "d")
    points = [
        point("sdegen", f"s{i}", 5, 0.1, about={**about, "commit": commit})
        for i, commit in enumerate(commits)
    ]
    assert page.made_with([*points, point("sdegen", "old", 5, 0.1)]) == (
        "sdegen 0.1; commit aaaaaaaaa, b, c and 1 more, not all of it committed; Python 3.11; "
        "a machine"
    )


def test_numbers_of_a_column_have_one_format() -> None:
    assert [markup.number(x) for x in (0.0123, 0.996, 1.234, 12.34, 123.4, 0.0, 1e-9)] == [
        "0.012", "1.00", "1.23", "12.3", "123", "0", "1.0e-09",
    ]  # fmt: skip
    assert markup.column([0.5, 2e-4, None], plain=False) == ["5.0e-01", "2.0e-04", markup.NONE]
    aligned = markup.column([123.4, 1.234, "words"], plain=True)
    assert aligned == ["123\u2008\u2007\u2007", "1.23", "words"]


def test_tables_mark_what_is_behind_and_who_is_ours() -> None:
    text = markup.table([["a", Entry(1.5, "who", late=True)], ["b", 2]], ["", "x"], [True, False])
    assert '<td title="who"><span class="late">1.50</span></td>' in text
    assert text.count('<tr class="ours">') == 1 and "<td>2</td>" in text
    assert markup.table([], ["x"]) == "" and markup.details("nothing", "") == ""


@pytest.mark.parametrize(("low", "high"), [(1e-9, 2.0), (0.11, 0.9), (2e-5, 3e-4), (1e-15, 1e3)])
def test_ticks_are_few_and_do_not_touch(low: float, high: float) -> None:
    marks = figures.ticks(low, high)
    assert 2 <= len(marks) <= 7 and low <= min(marks) and max(marks) <= high
    assert [figures.power(x) for x in (0.02, 1.0, 1e-7, 2e-5)] == ["0.02", "1", "10⁻⁷", "2·10⁻⁵"]


def test_every_panel_is_as_wide_and_no_two_lines_look_alike(rivals: Results) -> None:
    errors = rivals.errors()
    cells = cells_of(errors)
    drawn = figures.work_precision(errors, cells, Choice("sdegen", "mine", "log_snr"))
    drawn.append(figures.standing(errors, cells, tables.contenders(fixed(errors, cells))))
    assert len({re.search(r'width="[\d.]+pt"', svg)[0] for svg in drawn}) == 1  # type: ignore[index]
    assert all(svg.startswith('<svg role="img" aria-label="') for svg in drawn)
    looks = [(s["color"], s["marker"]) for s in figures.styles(42)]
    assert len(set(looks)) == 42


def test_a_default_that_did_not_run_is_refused(rivals: Results) -> None:
    errors = rivals.errors()
    ranking = fixed(errors, cells_of(errors))
    assert page.pick(errors, ranking, None) == Choice("sdegen", "recommended", "log_snr")
    assert page.pick(errors, ranking, "mine/log_snr") == Choice("sdegen", "mine", "log_snr")
    with refused("default names a solver and a walk"):
        page.pick(errors, ranking, "x/y")
