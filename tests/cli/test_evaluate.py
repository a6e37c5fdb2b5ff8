"""sdegen-evaluate as a person types it, on a tiny run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.processes import run, typed

pytestmark = pytest.mark.xdist_group("finished")
"""One run is made for all."""


@pytest.mark.slow
def test_a_run_is_evaluated_and_goes_on_where_it_stopped(finished: Path) -> None:
    few = ["run=outputs/digits", "n=7", "solver=unipc", "steps=4", "batch=3", "device=cpu"]
    more = ["elbo_draws=2", "ddpm_steps=3"]
    code, out, err = run("evaluate", *few, *more, cwd=finished)
    assert code == 0, err
    assert "bits per dimension, 7 samples" in out and "discrete bound" in out
    folder = finished / "outputs" / "digits" / "likelihood"
    result = json.loads((folder / "result.json").read_text())
    values = result["samples"]
    assert set(values) == {"flow", "error", "nfe", "elbo", "ddpm"}
    assert all(len(column) == 7 for column in values.values()) and values["nfe"] == [4.0] * 7
    assert values["error"] == [None] * 7  # of one pass it cannot be told
    assert (folder / "histogram.png").stat().st_size > 5000
    # Cut short in the middle of a line: the same command ends with the same values.
    lines = (folder / "parts.jsonl").read_text().splitlines(keepends=True)
    (folder / "parts.jsonl").write_text("".join(lines[:3]) + lines[3][:20])
    code, out, err = typed("evaluate", *few, *more, cwd=finished)
    assert code == 0, err
    again = json.loads((folder / "result.json").read_text())["samples"]
    for name, column in values.items():
        assert again[name] == (column if None in column else pytest.approx(column, rel=1e-4)), name
    code, _, err = typed("evaluate", *few, "probes=3", cwd=finished)
    assert code == 1 and "give name=" in err and len(err.strip().splitlines()) == 1
    # Other weights, as after training on: not the same evaluation.
    settings = json.loads((folder / "settings.json").read_text())
    (folder / "settings.json").write_text(json.dumps({**settings, "of": "0"}))
    code, _, err = typed("evaluate", *few, *more, cwd=finished)
    assert code == 1 and "other settings, weights or data" in err
    for wrong, reason in (
        (["importance=2"], "of estimates that is no bound"),
        (["weights=best"], "Unknown weights 'best'"),
        (["ema_std=0.5"], "0.2887"),
        (["step=7"], "step 7"),
        (["solver=ddpm", "steps=3"], "does not follow the probability flow"),
        (["steps=3"], "chooses its own steps"),
        (["data=photo_patches"], "trained on samples of shape (1, 8, 8)"),
        (["protocol=yang"], "Unknown protocol"),
        (["protocol=song", "solver=ddpm", "steps=2"], "does not follow the probability flow"),
    ):
        code, _, err = typed("evaluate", "run=outputs/digits", "name=w", *wrong, cwd=finished)
        assert code == 1 and reason in err and "Traceback" not in err, err


def test_points_of_the_plane_have_a_likelihood_in_nats(plane: Path, tmp_path: Path) -> None:
    how = ["run=outputs/toy2d", "n=20", "divergence=exact", "solver=heun", "steps=5"]
    code, out, err = typed("evaluate", *how, "device=cpu", cwd=plane)
    assert code == 0 and "nats, 20 samples" in out, err
    np.save(tmp_path / "far.npy", 100 * np.eye(2, dtype=np.float32))
    far = ["name=w", "data=array_file", f"data.path={tmp_path / 'far.npy'}", "device=cpu"]
    code, _, err = typed("evaluate", *how, *far, cwd=plane)
    assert code == 1 and "but these reach from 0 to 100: scale them" in err, err
    code, _, err = typed("evaluate", *how, "name=w", "protocol=song", "device=cpu", cwd=plane)
    assert code == 1 and "are for images" in err


@pytest.mark.slow
def test_samples_are_compared_in_features(finished: Path) -> None:
    how = ["run=outputs/digits", "device=cpu"]
    some = ["n=12", "nfe=2", "name=some", "quality=false"]
    code, _, err = typed("sample", *how, *some, cwd=finished)
    assert code == 0, err
    (name,) = (path.name for path in (finished / "outputs/digits/samples").glob("some-*"))
    asked = [*how, f"samples={name}", "n=50", "features=classifier"]
    code, out, err = typed("evaluate", *asked, cwd=finished)
    assert code == 0, err
    assert f"{name}: 12 samples, 50 data, 64 features" in out and "+-" in out
    assert "training data (floor): 12 samples" in out and "All figures are in" in out
    for wrong, reason in (
        (["samples=x", "features=raw"], f"give samples=NAME, one of {name}"),
        ([f"samples={name}"], "are compared by features: give features="),
        ([f"samples={name}", "features=fid"], "features is one of classifier, efficientnet_lite0"),
        ([f"samples={name}", "features=torchscript"], "features.path has no value"),
    ):
        code, _, err = typed("evaluate", *how, *wrong, cwd=finished)
        assert code == 1 and reason in err and len(err.strip().splitlines()) == 1, err
