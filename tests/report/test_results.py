"""What is made of points: choices, tables and refusals."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
import torch

from sdegen.bench.point import VERSION
from sdegen.bench.results import Cell, Choice, load, write_csv
from sdegen.report.standings import best, cells_of, fixed
from tests.cases import close, refused
from tests.points import point, written


def test_the_best_and_the_fixed_choice(tmp_path: Path) -> None:
    a, b, c = (
        Choice(*names) for names in
        (("sdegen", "a", "log_snr"), ("sdegen", "b", "log_snr"), ("other", "c", "log_snr"))
    )  # fmt: skip
    adaptive = point("sdegen", "d", 7, 0.2)
    adaptive["settings"] |= {"walk": None, "tol": 0.1}
    del adaptive["settings"]["nfe"]
    results = load(
        written(
            tmp_path,
            p1=point("sdegen", "a", 5, 1.0),
            p2=point("sdegen", "a", 10, 0.4),
            p3=point("sdegen", "b", 5, 2.0),
            p4=point("sdegen", "b", 10, 0.1),
            p5=point("other", "c", 5, 0.5),
            p6=point("other", "c", 10, 0.2),
            p7=adaptive,
            p8={**point("other", "e", 5, 0.0), "failed": "no way"},
        )
    )
    assert results.budgets == [5, 10] and results.libraries() == ["other"]
    assert [hole["failed"] for hole in results.holes] == ["no way"]
    errors = results.errors()
    five, ten = Cell("mixture", "vp", 5), Cell("mixture", "vp", 10)
    assert cells_of(errors) == [five, ten]
    assert best(errors, five) == (c, 0.5) and best(errors, five, True) == (a, 1.0)
    assert best(errors, ten) == (b, 0.1) and best(errors, ten, False) == (c, 0.2)
    # The adaptive one is within ten calls, not within five.
    assert errors[Choice("sdegen", "d", None)] == {ten: 0.2}
    ranking = fixed(errors, [five, ten])
    assert [f.choice for f in ranking] == [c, b, a]
    assert [f.ratio for f in ranking] == pytest.approx([2**0.5, 2, 8**0.5])


def test_the_published_table_says_what_the_points_say(tmp_path: Path) -> None:
    """And makes itself again."""
    law = {**point("sdegen", "e", 5, 0.3), "kind": "law", "floor": {"sliced": 0.1}}
    law |= {"errors": {"sliced": 0.25}, "weak": {"mean": 0.0, "variance": 0.125}}
    own = point("other", "d", 7, 0.25, agreement=1e-9)
    own["settings"] |= {"walk": None, "tol": 1e-3, "n": 4}
    del own["settings"]["nfe"]
    hole = {**point("other", "c", 5, 0.0), "failed": "no way, no"}
    folder = written(tmp_path / "a", p1=point("sdegen", "a", 5, 1 / 3), p2=own, p3=law, p4=hole)
    results = load(folder)
    write_csv(results, tmp_path / "points.csv.gz")
    again = load(tmp_path / "points.csv.gz")
    write_csv(again, tmp_path / "again.csv.gz")
    assert (tmp_path / "again.csv.gz").read_bytes() == (tmp_path / "points.csv.gz").read_bytes()
    close(
        torch.tensor([v for row in again.errors().values() for v in row.values()]),
        torch.tensor([v for row in results.errors().values() for v in row.values()]),
        rtol=1e-4,
    )
    assert again.errors().keys() == results.errors().keys()
    assert again.weak() == results.weak() and again.distances() == results.distances()
    assert [each["failed"] for each in again.holes] == ["no way, no"]
    (tmp_path / "other.csv.gz").write_bytes(gzip.compress(b"a,b\n1,2\n"))
    with refused("no table of this version's points"):
        load(tmp_path / "other.csv.gz")
    (folder / "points" / "p1.json").write_text("{")
    with refused("p1.json is damaged"):
        load(folder)


def test_points_that_would_hide_one_another_are_refused(tmp_path: Path) -> None:
    twice = {"a": point("sdegen", "a", 5, 1.0), "b": point("sdegen", "a", 5, 3.0)}
    with refused("Two points are a / log_snr at mixture vp 5"):
        load(written(tmp_path, **twice)).errors()


def test_of_an_adaptive_solver_the_tightest_tolerance_counts(tmp_path: Path) -> None:
    """Not the luckiest; and no error is smaller than what the reference is sure of."""
    made = {}
    for tol, nfe, error in ((1e-1, 4, 0.01), (1e-2, 5, 0.2), (1e-3, 9, 0.0)):
        made[f"p{nfe}"] = point("sdegen", "d", nfe, error, agreement=1e-9)
        made[f"p{nfe}"]["settings"] |= {"walk": None, "tol": tol}
        del made[f"p{nfe}"]["settings"]["nfe"]
    found = load(
        written(tmp_path, **made, x=point("other", "c", 5, 1.0), y=point("other", "c", 10, 1.0))
    )
    (row,) = (row for choice, row in found.errors().items() if choice.ours)
    assert list(row.values()) == [0.2, 1e-9]


def test_tuned_solvers_are_no_blind_choice(tmp_path: Path) -> None:
    made = {"a": point("sdegen", "tuned_weights", 5, 0.1), "b": point("sdegen", "b", 5, 0.2)}
    errors = load(written(tmp_path, **made)).errors()
    assert [f.choice.solver for f in fixed(errors, cells_of(errors))] == ["b"]
    (cell,) = cells_of(errors)
    found = best(errors, cell, True)
    assert found is not None and found.choice.solver == "tuned_weights"


def test_folders_without_points_or_of_another_version_are_refused(tmp_path: Path) -> None:
    with refused("no points in"):
        load(tmp_path)
    old = {**point("sdegen", "a", 5, 1.0), "version": VERSION + 1}
    with refused(f"of version {VERSION + 1}, but this is {VERSION}"):
        load(written(tmp_path, p=old))
