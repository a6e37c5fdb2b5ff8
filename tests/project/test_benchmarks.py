"""The benchmarks run, and measure what they say; their figures are not tested."""

from __future__ import annotations

import importlib.util
import json
import sys
import warnings
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
import torch

from sdegen.bench.watch import Memory, Watch
from tests.cases import ROOT
from tests.processes import python

BENCHMARKS = ROOT / "benchmarks"


def bench(name: str, *arguments: str) -> str:
    """What a script says with these arguments, in this process: all but its start."""
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    assert spec and spec.loader
    module, said = importlib.util.module_from_spec(spec), StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        warnings.catch_warnings(),
        redirect_stdout(said),
    ):
        warnings.simplefilter("ignore")  # a script goes on where a test would end
        patch.setattr(sys, "argv", [name, *arguments])
        patch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
        patch.setitem(sys.modules, name, module)  # dataclasses look their module up
        spec.loader.exec_module(module)
        module.main()
    return said.getvalue()


@pytest.mark.slow
def test_step_cost(tmp_path: Path) -> None:
    said = bench("step_cost", "--quick", "--out", str(tmp_path))
    assert "Not installed" not in said.replace("Not installed, so not measured: azula", "")
    record = json.loads((tmp_path / "step_cost.json").read_text())
    for methods in record["microseconds per step"].values():
        ours = methods["DPM-Solver++(2M)"]["sdegen"]
        theirs = methods["DPM-Solver++(2M)"]["diffusers"]
        assert ours["kernels"] < theirs["kernels"] and ours["host reads"] == 0
        assert ours["states"] <= 3 and 2 <= methods["DDIM"]["sdegen"]["kernels"] < 2.1
    assert len(record["verdict"]) == 8
    assert (tmp_path / "step_cost.svg").read_text().count("DPM-Solver") >= 1


def test_growth(tmp_path: Path) -> None:
    said = bench("growth", "--quick", "--out", str(tmp_path))
    record = json.loads((tmp_path / "growth.json").read_text())
    assert "slopes" in said and len(record["numbers"]["values"]) == 3
    for name in ("DDIM", "DPM-Solver++(2M)"):
        assert max(record["numbers"][name]["states"]) < 3
        assert 0 < record["tracing 20 steps, milliseconds"][name]["share of it"] < 1


def test_pictures_of_tables(tmp_path: Path) -> None:
    bench("table_pictures", "--quick", "--out", str(tmp_path))
    for name in ("stability.svg", "local_error.svg"):
        assert (tmp_path / name).stat().st_size > 10_000


@pytest.mark.slow
def test_tuning(tmp_path: Path) -> None:
    out = tmp_path / "tuning.json"
    assert "walk and weights" in bench("tuning", "--quick", "--out", str(out))
    rows = json.loads(out.read_text())["rows"]
    assert len(rows) == 10 and all(0 < row["tuned"] < 1 for row in rows)


def test_what_memory_counts() -> None:
    known = torch.zeros(100)
    with Memory(known) as memory:
        y = known.view(10, 10) + 1
        y.mul_(2)
        (y + 1).sum()
        z = y.double()
        del y, z
    assert memory.peak == 3 * 400 and memory.alive == 0


def test_what_the_watch_counts() -> None:
    x = torch.zeros(100)
    with Watch(100) as watch:
        y = x + 1
        y.mul_(2)
        z = y.view(10, 10)
        small = y[:3] * 2
        bool(y[0] > 0)
        del y, z
        w = x * 3
    assert (watch.kernels, watch.small, watch.reads, watch.peak) == (3, 2, 1, 1)
    assert small.numel() == 3 and w.numel() == 100


@pytest.mark.parametrize("name", ["step_cost", "tuning"])
def test_what_is_recorded_is_complete(name: str) -> None:
    """The files in the repository are of a full run."""
    record = json.loads((BENCHMARKS / f"{name}.json").read_text())
    if name == "tuning":
        assert {row["nfe"] for row in record["rows"]} == {5, 8, 10}
        assert len({row["problem"] for row in record["rows"]}) == 3
    else:
        assert set(record["microseconds per step"]) == {
            "64 x 2",
            "64 x 3 x 32 x 32",
            "16 x 3 x 256 x 256",
        }
        for methods in record["microseconds per step"].values():
            assert {"by hand", "sdegen", "diffusers", "k-diffusion", "azula"} <= set(
                methods["DDIM"]
            )


@pytest.mark.slow
def test_claims(tmp_path: Path) -> None:
    """Analytic-DPM's variance in few steps beats DDPM's large one on exact scores; beside the
    small one 64 samples do not tell."""
    out = tmp_path / "claims.json"
    assert "Analytic-DDPM" in bench("claims", "--quick", "--out", str(out))
    (found,) = json.loads(out.read_text())["results"].values()
    ten = {row["sampler"]: row["energy"] for row in found["rows"] if row["nfe"] == 10}
    assert ten["Analytic-DDPM"] < ten["DDPM, large variance"]


@pytest.mark.slow
def test_eta(tmp_path: Path) -> None:
    """On a Gaussian more noise is a larger error, at every number of calls."""
    out = tmp_path / "eta.json"
    assert "floor" in bench("eta", "--quick", "--out", str(out))
    rows = json.loads(out.read_text())["rows"]
    exact = [row["distance"] for row in rows if row["case"].startswith("gaussian")]
    assert len(rows) == 18 and len(exact) == 6
    assert all(row == sorted(row) for row in exact)


def test_euler_grid(tmp_path: Path) -> None:
    """All times end at the right deviation; on narrow data not at the same speed."""
    out = tmp_path / "euler_grid.json"
    bench("euler_grid", "--quick", "--out", str(out))
    rows = json.loads(out.read_text())["rows"]
    found = {(row["s"], row["steps"], row["walk"]): row["deviation"] for row in rows}
    for walk in ("score_sde", "uniform", "quadratic", "log_snr"):
        assert abs(found[0.5, 1000, walk] - 1) < 0.005
    assert found[0.001, 20, "score_sde"] > 1000 and found[0.001, 20, "log_snr"] < 2


@pytest.mark.slow
def test_pipeline(tmp_path: Path) -> None:
    """Ours and theirs in one loop."""
    python(
        "-W",
        "ignore",
        BENCHMARKS / "pipeline.py",
        "--quick",
        "--out",
        tmp_path / "x.json",
        cwd=ROOT,
    )
    quick = json.loads((tmp_path / "x.json").read_text())["rows"]
    kept = json.loads((BENCHMARKS / "pipeline.json").read_text())["rows"]
    assert quick.keys() == kept.keys()


def test_pipeline_ratios_are_those_of_the_page() -> None:
    """docs/diffusers.md: each of ours as a part of the nearest of theirs, and dpmpp as theirs."""
    kept = json.loads((BENCHMARKS / "pipeline.json").read_text())["rows"]
    page = (ROOT / "docs" / "diffusers.md").read_text(encoding="utf-8")
    theirs = [row for name, row in kept.items() if name.startswith("diffusers")]
    for name, row in kept.items():
        cells = " | ".join(f"{each:g}" for each in row.values())
        assert f"| {name} | {cells} |" in page
        if name.startswith("sdegen "):
            parts = [each / min(other[calls] for other in theirs) for calls, each in row.items()]
            cells = " | ".join(f"{each:.2g}" for each in parts)
            assert f"| {name.removeprefix('sdegen ')}, of the nearest | {cells} |" in page
    ours, same = kept["sdegen dpmpp, trailing"], kept["diffusers DPM++(2M)"]
    assert all(abs(ours[calls] / same[calls] - 1) < 0.02 for calls in ours)


def test_edits_are_those_of_the_page() -> None:
    """docs/editing.md: the colour is right and the shape stays, to 0.8 of overlap."""
    kept = {
        row["edit"]: row for row in json.loads((BENCHMARKS / "editing.json").read_text())["rows"]
    }
    page = (ROOT / "docs" / "editing.md").read_text(encoding="utf-8")
    shares = ("colour right", "size kept", "digit kept", "place kept")
    for name, row in kept.items():
        if row["overlap"] < 1:  # of a picture with itself nothing is said
            cells = " | ".join(f"{row[each]:.2f}" for each in shares)
            assert f"| {name} | {cells} | {row['overlap']:.3f} |" in page
    p2p, diffedit = (
        kept["Prompt-to-Prompt, until 2, of places None"],
        kept["DiffEdit, threshold 0.25"],
    )
    assert min(p2p["overlap"], diffedit["overlap"]) >= 0.8
    assert p2p["colour right"] == diffedit["colour right"] == 1


@pytest.mark.slow
def test_control(tmp_path: Path) -> None:
    """Kept figures: RePaint beats plain imputation tenfold; classes, likeness and cures grow."""
    python(BENCHMARKS / "control.py", "--quick", "--out", tmp_path, cwd=ROOT)
    quick = json.loads((tmp_path / "control.json").read_text())
    kept = json.loads((BENCHMARKS / "control.json").read_text())
    assert {k: list(v) for k, v in quick.items() if isinstance(v, dict)} == {
        k: list(v) for k, v in kept.items() if isinstance(v, dict)
    }
    off = {name: abs(row["mean"] - 1.35) for name, row in kept["imputation"].items()}
    assert 10 * off["RePaint(10, 10), 250"] < off["DDPM, 1000"]
    right = {
        scale: [row["right"] for row in each.values()]
        for scale, each in kept["classifier"].items()
    }
    assert min(right["2"]) >= 0.95 and min(right["4"]) >= 0.98 and max(right["0"]) < 0.15
    assert kept["similarity"]["100"]["cosine"] > kept["similarity"]["0"]["cosine"] + 0.3
    plain, cured = kept["purification"]["0"], kept["purification"]["0.3"]
    assert cured["attacked"] > plain["attacked"] + 0.2 and cured["clean"] > plain["clean"] - 0.05


@pytest.mark.slow
def test_restoration(tmp_path: Path) -> None:
    """What is known stays, the regression has no spread, and RePaint pays for its climbs; what is
    published is in the order that the page says."""
    python(BENCHMARKS / "restoration.py", "--quick", "--out", tmp_path / "x.json", cwd=ROOT)
    rows = json.loads((tmp_path / "x.json").read_text())["rows"]["inpaint"]
    assert all(row["known"] == 0 for row in rows.values())
    assert rows["regression"]["spread"] == 0 and rows["trained for it"]["spread"] > 0
    assert rows["RePaint, 2 times"]["nfe"] == 2 * rows["imputation, eta 0"]["nfe"]
    kept = json.loads((BENCHMARKS / "restoration.json").read_text())["rows"]
    assert kept.keys() == {"inpaint", "colorize"} and kept["inpaint"].keys() > rows.keys()
    assert all(row["known"] == 0 for row in kept["inpaint"].values())
    assert all(row["known"] < 1e-6 for row in kept["colorize"].values())  # grey, to rounding
    for each in kept.values():  # as the page says: at most 0.5 dB below a regression
        assert each["trained for it"]["mean"] > each["regression"]["mean"] - 0.5
    means = {name: row["mean"] for name, row in kept["inpaint"].items()}
    assert means["imputation, eta 0"] < means["imputation, eta 1"] < means["RePaint, 5 times"]
    assert means["trained for it"] > means["imputation, eta 1"]


@pytest.mark.slow
def test_guidance(tmp_path: Path) -> None:
    """A network of zero weights is not moved by a scale, and scales of one model cost one call."""
    python(BENCHMARKS / "guidance.py", "--quick", "--out", tmp_path / "x.json", cwd=ROOT)
    rows = json.loads((tmp_path / "x.json").read_text())["rows"]
    kept = json.loads((BENCHMARKS / "guidance.json").read_text())["rows"]
    assert rows.keys() == kept.keys()
    assert {rows[f"cfg {s}"]["right"] for s in (0, 1, 2, 8)} == {rows["cfg 3"]["right"]}
    assert [rows[f"cfg {s}"]["nfe"] for s in (0, 1, 2)] == [20, 20, 40]
    assert kept["cfg 1"]["right"] >= 0.95 and kept["cfg 2"]["right"] >= 0.99
    assert kept["cfg 8, thresholded"]["largest"] <= 1.1


@pytest.mark.slow
def test_faults(tmp_path: Path) -> None:
    """In a process of its own: it forks."""
    said = python(BENCHMARKS / "faults.py", "--quick", "--out", tmp_path, cwd=ROOT)
    record = json.loads((tmp_path / "faults.json").read_text())
    tried = [found for found in record.values() if isinstance(found, dict) and "tried" in found]
    assert len(tried) == 8 and all(found["tried"] > 1 for found in tried)
    assert [found["wrong"] for found in tried] == [[]] * 8, said
    assert record["growth"]["MB of solves"] < 20 and record["growth"]["MB of steps"] < 20


@pytest.mark.slow
def test_guided(tmp_path: Path) -> None:
    """Under guidance many values are worse than few in few steps; a clip lowers the order."""
    bench("guided", "--quick", "--out", str(tmp_path))
    found = json.loads((tmp_path / "guided.json").read_text())
    at = found["solvers"]["scale 16, plain"]
    assert at["wide_20"]["5"] < at["wide_33"]["5"]
    assert found["comparisons"]["all"]["10"]["recommended"] > 0
    assert (tmp_path / "guided.svg").stat().st_size < 80_000
    before = (tmp_path / "guided.csv.gz").read_bytes()
    bench("guided", "--quick", "--tables", "--out", str(tmp_path))
    assert (tmp_path / "guided.csv.gz").read_bytes() == before


def test_guidance_cost(tmp_path: Path) -> None:
    """CFG is two evaluations, DPS one and a product, MMPS of k iterations one and k + 1."""
    out = tmp_path / "cost.json"
    bench("guidance_cost", "--quick", "--out", str(out))
    rows = json.loads(out.read_text())["rows"]
    spent = {n: (r["evaluations"], r["products with the Jacobian"]) for n, r in rows.items()}
    assert spent["cfg"] == spent["cfg, together"] == spent["two calls"] == (2, 0)
    assert spent["dps"] == (1, 1) and spent["mmps, 5"] == (1, 6)


CASES = [
    "gaussian, std 0.3",
    "gaussian, std 0.05",
    "mixture",
    "digits, upper half",
    "digits, means of 2 x 2",
    "digits, means of 4 x 4",
]


@pytest.mark.slow
def test_posteriors(tmp_path: Path) -> None:
    """What is exact is as near as exact draws are, and every method costs what it says."""
    out = tmp_path / "posteriors.json"
    bench("posteriors", "--quick", "--out", str(out))
    rows = json.loads(out.read_text())["rows"]
    kept = json.loads((BENCHMARKS / "posteriors.json").read_text())["rows"]
    assert list(rows) == list(kept) == CASES
    for name in CASES:
        assert rows[name].keys() == kept[name].keys()
        spent = {method: row["vjps"] / row["nfe"] for method, row in kept[name].items()}
        assert [spent[m] for m in ("DPS, Bayes", "PiGDM", "TMPD", "MMPS(1)")] == [1, 1, 2, 2]
        assert spent["DDNM"] == spent["JFPS"] == 0
    for name in CASES[:2]:
        for method in ("MMPS(2)", "JFPS"):
            assert abs(kept[name][method]["cov"] - kept[name]["exact"]["cov"]) < 0.01


@pytest.mark.slow
def test_volumes(tmp_path: Path) -> None:
    """What is drawn costs an evaluation of each slice a step; what is joined is nearer."""
    bench("volumes", "--quick", "--out", str(tmp_path))
    rows = json.loads((tmp_path / "volumes.json").read_text())["rows"]
    kept = json.loads((BENCHMARKS / "volumes.json").read_text())["rows"]
    for kind in ("Fourier", "Radon"):
        assert rows[kind].keys() == kept[kind].keys()
        found = {name: row["psnr"] for name, row in kept[kind].items()}
        assert found["sample, TV across"] > found["posterior sample"] > 15
        assert found["posterior mean"] > found["posterior sample"]
        assert rows[kind]["posterior sample"]["nfe"] == 12 * 2
    assert (tmp_path / "volumes.png").stat().st_size > 10_000


def test_the_table_of_posteriors_is_the_record() -> None:
    """And exact draws are in the sets that have 99 % or more as often, but for chance."""
    rows = json.loads((BENCHMARKS / "posteriors.json").read_text())["rows"]
    for name in CASES[3:]:
        assert rows[name]["exact"]["in the 99 % set"] > 0.99 - 3 * (0.99 * 0.01 / 256) ** 0.5
    assert bench("posteriors", "--table") in (ROOT / "docs" / "inverse.md").read_text()


@pytest.mark.slow
def test_variances(tmp_path: Path) -> None:
    """What is exact is best of all, then what is nearer to it: a number for each coordinate, one
    for a step, DDPM's two; NPR-DPM's keeps that where the mean is off, SN-DPM's does not."""
    bench("variances", "--quick", "--out", str(tmp_path))
    found = json.loads((tmp_path / "variances.json").read_text())["mixture"]
    kept = json.loads((BENCHMARKS / "variances.json").read_text())["mixture"]
    for each in (found, kept):
        assert each["rows"].keys() == each["biased"].keys() == {"10", "25", "50"}
        for row, off in zip(each["rows"].values(), each["biased"].values(), strict=True):
            fitted = row["best of a coordinate"], row["best number of a step"]
            assert row["v*"] < min(fitted) <= max(fitted) < row["large"] < row["small"]
            assert off["NPR, exact"] < off["best number of a step"] < off["SN, exact"]
    for row in kept["rows"].values():
        assert row["v*"] < row["NPR head"] < row["SN head"] < row["best of a coordinate"]
        assert row["best of a coordinate"] < row["best number of a step"]


def test_the_tables_of_variances_are_the_record() -> None:
    said = bench("variances", "--table").split("\n\n")
    tables = [each.strip() for each in said if each.startswith("|")]
    page = (ROOT / "docs" / "few-steps.md").read_text()
    assert len(tables) == 4 and all(each in page for each in tables)
    kept = json.loads((BENCHMARKS / "variances.json").read_text())
    assert kept.keys() == {"mixture", "digits", "hybrid"}
    rows = kept["mixture"]["rows"]["25"]
    for each in kept["mixture"]["wished"]:  # as "SN head - v*, 25 steps"
        one, other = each["wish"].removesuffix(", 25 steps").split(" - ")
        assert each["found"] == pytest.approx(rows[one] - rows[other], abs=1e-9)
    for each in kept["hybrid"]["wished"][:2]:
        row = kept["hybrid"]["rows"][each["wish"].removesuffix(" steps").rpartition(", ")[2]]
        assert each["found"] == pytest.approx(row["hybrid"] - min(row["small"], row["large"]))
    both = kept["hybrid"]["L_simple"]
    ratio = both["hybrid"] / both["share=0"] - 1
    assert kept["hybrid"]["wished"][2]["found"] == pytest.approx(ratio)
    npr, sn = (rows[f"{name} head"] - rows["v*"] for name in ("NPR", "SN"))
    for figure in (f"{npr:.3f}", f"{sn:.3f}", f"{100 * abs(ratio):.2f} %"):
        assert figure in page
