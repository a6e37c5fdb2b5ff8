"""sdegen-train as a person types it, on tiny runs."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.cases import ROOT, refused
from tests.processes import TINY, another_at_work, finish, run, script, started, typed


@pytest.mark.xdist_group("finished")
def test_the_main_job_leaves_everything(finished: Path) -> None:
    folder = finished / "outputs" / "digits"
    names = {path.name for path in folder.iterdir()}
    solvers = {"euler_maruyama", "ddpm", "heun", "ddim", "dpmpp"}
    assert {f"samples-{solver}.png" for solver in solvers} < names
    assert {"trajectory.png", "loss.png", "table.json", "config.json", "metrics.jsonl"} < names
    assert {"model.safetensors", "checkpoint.safetensors"} < names
    assert not any(
        name.startswith(".") or name.endswith((".pkl", ".pt", ".log")) for name in names
    )
    floor, *rows = json.loads((folder / "table.json").read_text())
    assert floor["frechet"] > 0 and floor["sliced"] > 0
    assert {row["solver"] for row in rows} == solvers
    for row in rows:
        assert row["nfe"] == 2 and row["seconds"] > 0
        assert row["frechet"] > floor["frechet"] and row["sliced"] > floor["sliced"]
    config = json.loads((folder / "config.json").read_text())
    assert config["conditional"] is True and config["sde"]["_target_"] == "sdegen.VPSDE"


@pytest.mark.xdist_group("plane")
def test_the_same_command_does_not_train_again(plane: Path) -> None:
    checkpoint = plane / "outputs" / "toy2d" / "checkpoint.safetensors"
    before, again = checkpoint.read_bytes(), [*TINY, "train.steps=2", "conditional=true"]
    code, _, err = typed("train", *again, cwd=plane)
    assert code == 0, err
    assert checkpoint.read_bytes() == before
    code, _, err = typed("train", *again, "sde=subvp", cwd=plane)
    assert code == 1 and "made with sde._target_ = 'sdegen.VPSDE'" in err and "name=" in err


def row(path: Path) -> dict[str, Any]:
    line: dict[str, Any] = json.loads(path.read_text())["rows"][1]
    return line


WRONG = {
    "sde.beta_mim=3": ["no setting sde.beta_mim", "beta_max, beta_min"],
    "steps=3": ["no setting steps"],
    "sde=vpp": ["sde/vpp", "cosine", "subvp"],
    "train.steps=abc": ["train.steps", "abc"],
    "train.steps=0": ["train.steps must be a whole number >= 1"],
    "+sde.gamma=3": ["sdegen.VPSDE", "gamma", "beta_min"],
    "+train.optimizer.rate=3": ["train.optimizer", "rate", "weight_decay"],
    "train.optimizer.lr=-1": ["Invalid learning rate: -1"],
    "sde._target_=os.system": ["os.system", "only sdegen, torch.optim"],
    "loss.times._target_=torch.load": ["torch.load", "only sdegen, torch.optim"],
    "model.predicts=epsilon": ["Unknown prediction 'epsilon'", "eps, score, v, velocity, x0"],
    "loss.weighting=nonsense": ["Unknown weighting 'nonsense'", "likelihood"],
    "device=tpu": ["'auto', 'cpu' or 'cuda'", "tpu"],
    "data=image_folder": ["data.root"],
    "evaluate.budgets=[1]": ["Heun needs at least 2 network calls", "nfe = 1"],
    "hydra.run.dir=/proc/nowhere": ["/proc/nowhere"],
    "name=../../x": ["name must be the name of a folder, but it is '../../x'"],
    "name=": ["name must be a name, but it is ''"],
    "+train.compiled=true": ["no setting compiled", "batch_size, checkpointing, clip"],
    "train.compile=perhaps": ["train.compile", "perhaps"],
    "train.ema=[0.9,2]": ["train.ema must lie in [0, 1), not 2"],
    "train.sample_every=30": ["sample_every = 30 must be a multiple of train.log_every = 20"],
    "train.keep_every=-1": ["train.keep_every must be a whole number >= 0, not -1"],
    "evaluate.solvers={}": ["evaluate.solvers={} takes nothing away", "~evaluate.solvers"],
    "~evaluate": ["setting budgets has no value"],
    "walk=[1,2]": ["a group takes one name, as in walk=uniform"],
    "device=mps": ["train.device must be 'auto', 'cpu' or 'cuda', not 'mps'"],
    "sigma_data=abc": ["sigma_data must be a number or auto, but it is 'abc'"],
    "net=unet": ["UNet asks for channels, but samples of shape (2,) only have", "net=mlp"],
    "data=digits": ["MLP asks for dim, but samples of shape (1, 8, 8)", "net=unet for series"],
    "objective=fid": ["objective must be one of frechet, sliced, but it is 'fid'"],
}


@pytest.mark.parametrize("argument", WRONG)
def test_what_is_wrong_is_said_before_anything_runs(argument: str, tmp_path: Path) -> None:
    arguments = ["train.steps=1", "experiment=toy2d", "device=cpu", argument]
    code, _, err = typed("train", *arguments, cwd=tmp_path)
    assert code == 1 and "step/s" not in err
    assert "Traceback" not in err and len(err.strip().splitlines()) == 1, err
    assert all(part in err for part in WRONG[argument]), err
    assert not list(tmp_path.rglob("*.safetensors"))


slow = pytest.mark.slow
"""More processes than one for each command."""


@slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_stopped_run_continues_bit_for_bit(number: int, tmp_path: Path) -> None:
    """Stopped or killed and continued, the weights are those of a run that was left alone."""
    from safetensors.torch import load_file

    steps = ["train.steps=300", "train.save_every=20"]
    records = tmp_path / "outputs" / "toy2d" / "metrics.jsonl"
    with started([script("train"), *TINY, *steps], tmp_path) as process:
        while not (records.exists() and len(records.read_text().splitlines()) > 25):
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(number)
        code, out, err = finish(process)
    if number == signal.SIGKILL:
        assert code == -number
    else:
        assert code == 128 + number, err
        assert "Stopped at step" in out and "Traceback" not in err
    code, _, err = typed("train", *TINY, *steps, cwd=tmp_path)
    assert code == 0, err
    code, _, err = typed("train", *TINY, *steps, "name=whole", cwd=tmp_path)
    assert code == 0, err
    one, two = (
        load_file(tmp_path / "outputs" / name / "model.safetensors") for name in ("toy2d", "whole")
    )
    assert one.keys() == two.keys()
    assert all((one[name] == two[name]).all() for name in one)


@slow
def test_two_processes(tmp_path: Path) -> None:
    """Two processes on half batches take the steps of one: their gradients are averaged."""
    more = ["train.checkpointing=true", "train.ema=[0.9,0.5]", "train.keep_every=2"]
    both = [*TINY, "train.steps=6", "train.devices=2", *more, "train.sample_every=3"]
    code, out, err = run("train", *both, cwd=tmp_path)
    assert code == 0, err
    assert out.count("2 processes") == 1 and out.count("real data (floor)") == 1
    records = (tmp_path / "outputs" / "toy2d" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in records] == [1, 2, 3, 4, 5, 6]
    folders = [tmp_path / "outputs" / "toy2d" / name for name in ("checkpoints", "progress")]
    kept, drawn = (sorted({int(path.stem) for path in each.iterdir()}) for each in folders)
    assert kept == [2, 4, 6] and drawn == [3, 6]


def test_a_sweep_goes_on_past_a_bad_job(tmp_path: Path) -> None:
    tiny = [*TINY, "train.steps=1", "evaluate.budgets=[2]"]
    widths = ["net.width=8,-1,16", "packages=[aaaa,bbbb,cccc,dddd,eeee,ffff,gggg,hhhh]"]
    code, out, err = typed("train", "-m", *tiny, *widths, cwd=tmp_path)
    assert code == 1 and out.count("real data (floor)") == 2 and "Traceback" not in err
    head, bad = err.strip().splitlines()[-2:]
    assert head == "sdegen: 1 of 3 jobs failed:"
    assert "net.width=-1" in bad and bad.endswith(
        "width must be a whole number >= 1, but it is -1."
    )
    folders = [path.parent for path in tmp_path.rglob("table.json")]
    assert len(folders) == 2 and all(len(folder.name) <= 120 for folder in folders)
    assert {folder.parent for folder in folders} == {tmp_path / "multirun" / "toy2d"}


def test_a_bug_in_one_job_is_shown_and_costs_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sdegen.cli import evaluate

    def task(config: dict[str, Any]) -> None:
        if config["n"] == 2:
            raise RuntimeError("a bug")
        print(f"done {config['n']}")

    monkeypatch.setattr(evaluate, "run", task)
    code, out, err = typed("evaluate", "-m", "run=x", "n=1,2,3", cwd=tmp_path)
    assert code == 1 and out.split("\n")[:2] == ["done 1", "done 3"]
    assert "Traceback" in err and err.endswith(
        "1 of 3 jobs failed:\n  run=x n=2: RuntimeError: a bug\n"
    )


def test_a_folder_is_of_one_run_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / "outputs" / "toy2d"
    folder.mkdir(parents=True)
    with another_at_work(folder):
        code, _, err = typed("train", *TINY, "train.steps=1", cwd=tmp_path)
    assert code == 1 and "outputs/toy2d is in use by process 7 on elsewhere: wait" in err
    assert len(err.strip().splitlines()) == 1
    assert [path.name for path in folder.iterdir()] == ["lock"]


@pytest.mark.slow
def test_one_damaged_image_of_forty_ends_nothing(tmp_path: Path) -> None:
    import numpy as np
    from PIL import Image

    (tmp_path / "images").mkdir()
    for i in range(40):
        pixels = np.random.default_rng(i).integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{i:02}.png")
    whole = (tmp_path / "images" / "23.png").read_bytes()
    (tmp_path / "images" / "23.png").write_bytes(whole[:-40])
    small = ["data.root=images", "data.size=8", "net.width=8", "net.heads=2", "net.mults=[1,2]"]
    few = ["conditional=false", "train.steps=5", "train.batch_size=20", "evaluate.budgets=[2]"]
    some = ["~evaluate.solvers.ddpm", "~evaluate.solvers.euler_maruyama", "~evaluate.solvers.heun"]
    command = ["data=image_folder", *small, *few, *some, "device=cpu"]
    code, out, err = run("train", *command, cwd=tmp_path)
    assert code == 0 and "real data (floor)" in out, err
    said = "sdegen: 'images/23.png' could not be read (is it damaged?)"
    assert err.count(said) == 1  # whether it is trained on or held out


FEW = [
    "train.steps=2",
    "train.batch_size=8",
    "net.width=8",
    "conditional=false",
    "evaluate.budgets=[2]",
    "~evaluate.solvers.euler_maruyama",
    "~evaluate.solvers.ddpm",
    "~evaluate.solvers.heun",
    "device=cpu",
]


@pytest.mark.parametrize(
    ("shape", "net"),
    [((2, 16), ["unet", "net.heads=2"]), ((3,), ["mlp"])],
    ids=["series", "table"],
)
def test_series_and_tables_of_a_file(
    shape: tuple[int, ...], net: list[str], tmp_path: Path
) -> None:
    """Trained, sampled, measured and drawn; a tenth is held out, and sigma_data is measured."""
    import numpy as np

    x = 3 * np.random.default_rng(0).normal(size=(40, *shape))
    np.save(tmp_path / "x.npy", x)
    command = ["data=array_file", "data.path=x.npy", f"net={net[0]}", *net[1:], *FEW, "name=mine"]
    code, out, err = typed("train", *command, cwd=tmp_path)
    assert code == 0, err
    folder = tmp_path / "outputs" / "mine"
    config = json.loads((folder / "config.json").read_text())
    sigma = config["sigma_data"]
    assert f"36 samples and 4 held out of the same data, sigma_data {sigma}, 2 steps" in out
    assert sigma == pytest.approx(x.std(), rel=0.1)
    assert config["model"]["sigma_data"] == config["loss"]["weighting"]["sigma_data"] == sigma
    assert {"samples-ddim.png", "samples-dpmpp.png", "trajectory.png"} < {
        path.name for path in folder.iterdir()
    }
    assert json.loads((folder / "table.json").read_text())[1]["sliced"] > 0
    if net[0] == "mlp":
        return
    code, _, err = typed("sample", "run=outputs/mine", "nfe=2", "n=4", "device=cpu", cwd=tmp_path)
    assert code == 0, err
    code, out, err = typed("evaluate", "run=outputs/mine", "nfe=4", "solver=heun", cwd=tmp_path)
    assert code == 0 and "nats, 4 samples" in out, err


@slow
def test_a_run_from_before_goes_on_by_the_same_command(tmp_path: Path) -> None:
    """What was begun with sigma_data = 0.7, a number then, is no other run now that it is auto."""
    tiny = [*TINY, "evaluate.budgets=[2]"]
    code, _, err = typed("train", *tiny, "train.steps=1", "sigma_data=0.7", cwd=tmp_path)
    assert code == 0, err
    code, out, err = typed("train", *tiny, "train.steps=2", cwd=tmp_path)
    assert code == 0 and "sigma_data 0.7," in out, err
    code, _, err = typed("train", *tiny, "train.steps=3", "sigma_data=0.6", cwd=tmp_path)
    assert code == 1 and "sigma_data = 0.7, but this run has" in err


def test_configuration_can_be_looked_at(tmp_path: Path) -> None:
    code, out, _ = typed("train", "--cfg", "job", cwd=tmp_path)
    assert code == 0 and "_target_: sdegen.VPSDE" in out and not list(tmp_path.iterdir())
    code, out, _ = typed("train", "-sc", "install=bash", cwd=tmp_path)
    assert code == 0 and "complete" in out


@pytest.mark.slow
def test_every_setting_composes_and_builds(tmp_path: Path) -> None:
    """Each file of each group, through the same composition and construction as the commands."""
    from hydra import compose, initialize_config_module
    from hydra.core.config_store import ConfigStore
    from omegaconf import OmegaConf

    import sdegen as sg
    from sdegen.cli.main import store_groups
    from sdegen.data import toy
    from sdegen.runs.build import build, build_optimizer, build_walk
    from sdegen.runs.coders import codes
    from sdegen.runs.network import build_model
    from sdegen.runs.scale import with_sigma
    from sdegen.runs.students import as_student, taught

    store_groups()
    root = ROOT / "conf"
    groups = {
        path.name: sorted(str(p.relative_to(path).with_suffix("")) for p in path.rglob("*.yaml"))
        for path in root.iterdir()
    }
    with initialize_config_module("sdegen.conf", version_base="1.3"):
        for group in ("sde", "model", "loss", "walk", "experiment"):
            for name in groups[group]:
                if group == "experiment" and name.startswith(("distill/", "heads/residual")):
                    continue  # of a teacher: built in tests/runs/test_students.py
                more = ["coder.run=x"] if name == "latents/diffusion" else []
                cfg = compose("train", [f"{group}={name}", "name=x", *more])
                plain: Any = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
                config = with_sigma(plain, toy("moons"), tmp_path)
                if codes(config):  # built in tests/runs/test_coders.py
                    continue
                shape = (2,) if "MLP" in config["net"]["_target_"] else (3, 32, 32)
                model = build_model(config, shape, 10)
                assert isinstance(model.sde, sg.LinearSDE), name
                on = sg.DiscreteVPSDE() if group == "walk" else model.sde
                walk = build_walk(config)
                assert (walk is None) == (config["walk"] == {}) == (name == "default")
                assert walk is None or len(walk(on, 4)) >= 5
                # What a file says of a grid is what the function says by default.
                grid = sg.walks.GRIDS.get(name) if group == "walk" else None
                assert grid is None or torch.equal(walk(on, 4), grid(on, 4)), name
                assert callable(build_optimizer(config))
                if taught(config["loss"]):  # built in tests/runs/test_students.py, with a teacher
                    with refused("give teacher.run=outputs/"):
                        as_student(config)
                else:
                    assert callable(build(config["loss"]))
        for name in ("unipc", "ddim_half", "adaptive_dopri5"):
            solver = build(compose("sample", [f"solver={name}", "run=x", "name=x"]).solver)
            assert solver == sg.solvers.catalogue()[name].build(), name
    # What Hydra composes of a solver's name is what its store holds.
    for name, entry in sg.solvers.catalogue().items():
        assert build(ConfigStore.instance().load(f"solver/{name}.yaml").node) == entry.build(), (
            name
        )
