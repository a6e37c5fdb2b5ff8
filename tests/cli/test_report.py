"""``sdegen-report``: the page of a run holds what was sampled, and works in a browser."""

from __future__ import annotations

import base64
import html
import io
import json
import os
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import sdegen as sg
from sdegen.data import class_labels
from sdegen.plots import pixels
from sdegen.runs.folder import load_run
from tests.cases import close
from tests.processes import call, typed


def page_of(cwd: Path, *arguments: str) -> str:
    """The page that the command writes."""
    done = typed("report", *arguments, "device=cpu", "out=page.html", cwd=cwd)
    assert done.code == 0, done.err
    assert "page.html: one file of " in done.out
    return (cwd / "page.html").read_text(encoding="utf-8")


def states_of(page: str) -> Any:
    """The data of the moving pictures."""
    (found,) = re.findall(r'<script type="application/json" id="states">(.*?)</script>', page)
    return json.loads(found)


def refuse_requests(page: str) -> None:
    """The page asks for nothing from elsewhere."""
    for address in re.findall(r"""(?:src|href)=["'](.*?)["']|url\((.*?)\)""", page):
        assert "".join(address).startswith(("data:", "#")), address
    assert "<link" not in page and "import(" not in page and "fetch(" not in page
    assert len(page) < 3e6


@pytest.fixture(scope="module")
def points(plane: Path) -> str:
    """The page of a run on the plane."""
    return page_of(plane, "run=outputs/toy2d", "nfe=4", "seed=3", "solver@left=heun")


def test_points_are_the_states_of_the_solvers(plane: Path, points: str) -> None:
    found = states_of(points)
    refuse_requests(points)
    assert [each["name"] for each in found["solvers"]] == ["Heun", "DPMSolverPP"]
    y = class_labels(500, [9935, 10065])
    model = sg.load(plane / "outputs" / "toy2d").given(y=y)
    for each, solver in zip(found["solvers"], (sg.Heun(), sg.DPMSolverPP()), strict=True):
        path = sg.solve(model, (500, 2), solver=solver, nfe=4, walk="log_snr", seed=3, path=True)
        assert path.path is not None and len(each["states"]) == len(path.path.x)
        for text, x in zip(each["states"], path.path.x, strict=True):
            raw = np.frombuffer(base64.b64decode(text), dtype="<i2").reshape(500, 2)
            seen = torch.from_numpy(raw.astype("float32")) * (found["half"] / 32767)
            inside = (x.abs() < found["half"]).all(1)
            assert inside.float().mean() > 0.99
            close(seen[inside], x[inside], atol=found["half"] / 32767)
    heun, other = (each["at"] for each in found["solvers"])
    assert heun == [0, 0, 1, 1, 2] and other == [0, 1, 2, 3, 4]  # two calls a step, or one
    assert found["levels"][0]["rho"] > 100 > 1 > found["levels"][-1]["rho"]
    assert found["groups"] == y.tolist()


def test_its_commands_give_its_numbers_again(plane: Path, points: str) -> None:
    rows = json.loads((plane / "outputs" / "toy2d" / "table.json").read_text())
    told = [html.unescape(each) for each in re.findall(r'<code class="line">(.*?)</code>', points)]
    assert len(told) >= len(rows) - 1  # all but the floor
    row = next(row for row in rows if row["solver"] == "ddpm")
    (said,) = (each for each in told if "solver=ddpm " in each and "nfe=4" in each)
    name, *arguments = shlex.split(said)
    # a name of its own: the run is shared with other tests, which may have sampled by DDPM too
    done = typed(name.removeprefix("sdegen-"), *arguments, "device=cpu", "name=again", cwd=plane)
    assert done.code == 0, done.err
    (result,) = (plane / "outputs" / "toy2d" / "samples").glob("again-*/result.json")
    assert json.loads(result.read_text())["rows"][-1]["sliced"] == row["sliced"]


def test_images_are_sheets_of_pixels(finished: Path) -> None:
    from PIL import Image

    page = page_of(finished, "run=outputs/digits", "nfe=3", "solver@right=ddpm")
    refuse_requests(page)
    found = states_of(page)
    assert found["kind"] == "images"
    folder = finished / "outputs" / "digits"
    run = load_run(folder, [], "cpu")
    model = run.model.given(y=class_labels(16, run.counts))
    x = sg.sample(model, (16, 1, 8, 8), solver=sg.DDIM(), nfe=3, walk="log_snr", seed=0)
    packed = found["solvers"][0]["states"][-1].partition("base64,")[2]
    image = np.asarray(Image.open(io.BytesIO(base64.b64decode(packed))))
    assert image.shape == (32, 32, 3)
    reach = max(1.0, float(x.abs().flatten().kthvalue(round(0.99 * x.numel()) + 1).values))
    first = pixels(x[:1] / reach)[0].astype(int)
    assert abs(image[:8, :8].astype(int) - first).max() <= 3
    assert page.count('data-samples="data:image/png;base64,') == 5  # of five solvers at one budget


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (["run=outputs/none"], "outputs/none"),
        (["run=outputs/toy2d", "nfe=0"], "nfe must be a whole number >= 1, but it is 0"),
        (["run=outputs/toy2d", "solver@left=adaptive_heun"], "chooses its own"),
        (["run=outputs/toy2d", "solver@left=hoin"], "solver is one of"),
    ],
)
def test_bad_input_is_a_sentence_and_no_page(plane: Path, wrong: list[str], reason: str) -> None:
    done = typed("report", *wrong, "device=cpu", "out=wrong.html", cwd=plane)
    assert done.code == 1 and reason in done.err and done.err.count("\n") == 1
    assert not (plane / "wrong.html").exists()


def browser() -> str:
    """A headless browser; where there is none, tests of pages are skipped, but never by CI."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        if os.environ.get("CI"):
            pytest.fail("CI needs a browser: apt-get install chromium.")
        pytest.skip("there is no chromium to look at pages with")
    return found


FRAME = """<!doctype html><body><script>
addEventListener("message", (e) => { document.body.textContent = "JSON" + e.data + "END"; });
</script><iframe src="page.html" style="width: WIDTHpx; height: 900px; border: 0"></iframe>"""
WATCH = "<script>window.wrong = []; onerror = (message) => wrong.push(message);</script>"
MOVE = """
<script>addEventListener("load", () => setTimeout(() => {
  const level = document.getElementById("level"), seen = [];
  for (const k of [0, Math.floor(level.max / 2), level.max]) {
    level.value = k;
    level.dispatchEvent(new Event("input"));
    seen.push([document.getElementById("said").textContent,
      ...["way-0", "way-1"].map((id) => document.getElementById(id).toDataURL())]);
  }
  const play = document.getElementById("play");
  level.value = 0; play.click(); const playing = play.textContent; play.click();
  document.body.innerHTML = ""; document.title = "";
  const wide = document.documentElement;
  parent.postMessage(JSON.stringify({seen, wrong, playing,
    still: window.still, width: window.innerWidth}), "*");
}, 500));
addEventListener("load", () => setTimeout(() => { window.still = [
  document.documentElement.scrollWidth,
  ...[...document.querySelectorAll("canvas[data-samples]")].map((c) => c.toDataURL())]; }, 300));
</script>
"""


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("kind", ["points", "images"])
def test_the_page_works_in_a_browser(
    finished: Path, plane: Path, tmp_path: Path, kind: str, width: int
) -> None:
    """The slider moves both pictures; nothing fails, nothing is wider than the screen."""
    cwd, run = (plane, "toy2d") if kind == "points" else (finished, "digits")
    page = page_of(cwd, f"run=outputs/{run}", "nfe=6")
    made = tmp_path / "page.html"
    made.write_text(page.replace("<head>", f"<head>{WATCH}") + MOVE, encoding="utf-8")
    # A window is never narrower than 500 pixels, but a frame is as wide as it is told.
    frame = tmp_path / "frame.html"
    frame.write_text(FRAME.replace("WIDTH", str(width)), encoding="utf-8")
    command = [
        browser(),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--window-size=1400,900",
    ]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=5000"]
    done = call([*command, "--dump-dom", frame.as_uri()], tmp_path)
    (told,) = re.findall(r"JSON(\{.*\})END", html.unescape(done.out)) or [done.err]
    seen = json.loads(told)
    assert seen["wrong"] == [] and seen["playing"] == "Pause"
    first, middle, last = seen["seen"]
    assert "\u03c3/\u03b1 = " in first[0] and first[0] != middle[0] != last[0]
    for side in (1, 2):
        assert len({first[side], middle[side], last[side]}) == 3
    assert last[1] != last[2]  # two solvers are not one
    scrolled, *drawn = seen["still"]
    assert scrolled <= seen["width"] == width and len(set(drawn)) == 5
