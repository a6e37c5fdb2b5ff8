"""sdegen's solvers inside diffusers' pipelines end where sg.sample does."""

from __future__ import annotations

import copy
import pickle
from itertools import pairwise
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor

import sdegen as sg
from sdegen.guidance import Thresholded
from sdegen.interop.scheduler import SdegenScheduler, firsts
from sdegen.programs import remembered
from tests.cases import ROOT, close, refused
from tests.interop.folders import dit, unet, vae

NET = unet()
MODEL = sg.ScoreModel(
    lambda x, t: NET(x, t).sample, sg.DiscreteVPSDE(), "eps", time="1000t-1", module=NET
)
X = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(3))
PLAIN = diffusers.DDIMScheduler(clip_sample=False)


def scheduler(**how: Any) -> Any:
    return SdegenScheduler.from_config(PLAIN.config, **how)


def looped(made: Any, x: Tensor, n: int, net: Any = NET, change: Any = None, **how: Any) -> Tensor:
    """What every pipeline does."""
    made.set_timesteps(n)
    with torch.no_grad():
        for i, t in enumerate(made.timesteps):
            x = made.step(net(made.scale_model_input(x, t), t).sample, t, x, **how).prev_sample
            x = x if change is None else change(i, x)
    return x


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"solver": "unipc"},
        {"solver": "dpmpp", "walk": "trailing"},
        {"solver": "dpmpp", "denoise": False},
        {"solver": "heun"},
        {"solver": "dpmpp_2s"},
        {"solver": "ddim", "walk": "leading"},
        {"solver": "ddpm"},
        {"solver": "dpmpp", "eta": 0.7},
    ],
    ids=str,
)
def test_a_pipeline_ends_where_sample_does(tmp_path: Path, how: dict[str, Any]) -> None:
    """Bit for bit, from the same noise; after it was saved and loaded."""
    pipe = diffusers.DDPMPipeline(NET, scheduler(**how))
    pipe.save_pretrained(tmp_path)
    loaded = SdegenScheduler.from_pretrained(tmp_path, subfolder="scheduler")
    one, two = (
        {k: v for k, v in each.config.items() if not k.startswith("_")}
        for each in (loaded, pipe.scheduler)
    )
    assert one == two
    pipe = diffusers.DDPMPipeline(NET, loaded)
    pipe.set_progress_bar_config(disable=True)
    g = torch.Generator().manual_seed(3)
    got = pipe(batch_size=2, num_inference_steps=9, generator=g, output_type="np").images
    g = torch.Generator().manual_seed(3)
    start = torch.randn(2, 1, 8, 8, generator=g)
    c = loaded.config
    want = sg.sample(
        MODEL,
        start,
        solver=c.solver,
        walk=c.walk,
        eta=c.eta,
        nfe=9,
        denoise=c.denoise,
        noise=sg.noise.Fresh(g),
    )
    close(got, (want / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1), atol=1e-6, rtol=0)
    assert torch.equal(looped(scheduler(**how), start, 9, generator=fresh(g)), want)


def fresh(g: torch.Generator) -> torch.Generator:
    """A generator after the draw of the start."""
    g.manual_seed(3)
    torch.randn(2, 1, 8, 8, generator=g)
    return g


def test_whole_steps_stay_whole() -> None:
    made = scheduler(solver="dpmpp", walk="trailing")
    made.set_timesteps(10)
    assert made.timesteps.dtype == torch.int64 and made.timesteps.tolist()[:2] == [999, 899]
    made = scheduler()
    made.set_timesteps(10)
    assert made.timesteps.is_floating_point() and len(made.timesteps) == 10 and len(made) == 1000


@pytest.mark.parametrize("solver", ["dpmpp", "unipc", "heun"])
@pytest.mark.parametrize("k", [2, 4])
def test_image_to_image_begins_on_the_way(solver: str, k: int) -> None:
    """From a noised image at one of the timesteps, told or found: the rest of the walk."""
    made = scheduler(solver=solver)
    made.set_timesteps(8)
    k = next(i for i in firsts(made.plan.program) if i >= k)
    t = made.timesteps[k]
    z = torch.randn(X.shape, generator=torch.Generator().manual_seed(4))
    start = made.add_noise(X, z, t.expand(2))
    at = (float(t) + 1) / 1000
    close(start, MODEL.sde.mix(X, MODEL.sde(at), z), atol=1e-6, rtol=1e-5)  # type: ignore[attr-defined]
    ends = []
    for told in (True, False):
        made.set_timesteps(8)
        if told:
            made.set_begin_index(k)
        x = start
        with torch.no_grad():
            for s in made.timesteps[k:]:
                x = made.step(NET(x, s).sample, s, x).prev_sample
        ends.append(x)
    plan = made.plan
    walk = plan.walk.times[[i for i, s in enumerate(plan.walk.times) if float(s) <= at + 1e-6]]
    want = sg.sample(MODEL, start, solver=solver, walk=walk, denoise=True)
    close(ends[0], want, atol=1e-5, rtol=0)
    assert torch.equal(ends[0], ends[1])


def test_an_image_written_into_ends_the_memory() -> None:
    """As for inpainting: it is what a stage for each step makes."""
    mask = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    mask[..., :4] = True

    def change(i: int, x: Tensor) -> Tensor:
        return torch.where(mask, 0.3, x)

    got = looped(scheduler(solver="dpmpp"), X, 5, change=change)
    made = scheduler(solver="dpmpp")
    made.set_timesteps(5)
    times, x = made.plan.walk.times, X
    for a, b in pairwise(times):
        x = change(0, sg.sample(MODEL, x, solver="dpmpp", walk=torch.stack([a, b])))
    x = MODEL(x, MODEL.sde(times[-1])).x0.detach()
    close(got, change(0, x), atol=1e-5, rtol=0)
    kept = looped(scheduler(solver="dpmpp"), X, 5, change=lambda i, x: x.clone())
    assert torch.equal(kept, looped(scheduler(solver="dpmpp"), X, 5))


@pytest.mark.parametrize("clip", [{"clip_sample": True}, {"thresholding": True}], ids=str)
def test_clips_come_along(clip: dict[str, Any]) -> None:
    other = diffusers.DDIMScheduler(**{"clip_sample": False, **clip})
    made = SdegenScheduler.from_config(other.config, solver="dpmpp")
    want = sg.sample(Thresholded(MODEL, None, (-1.0, 1.0)), X, solver="dpmpp", nfe=6, denoise=True)
    close(looped(made, X, 6), want, atol=1e-6, rtol=0)


def test_dit_with_guidance_and_a_learned_variance() -> None:
    pipe = diffusers.DiTPipeline(transformer=dit(), vae=vae(), scheduler=scheduler())
    pipe.set_progress_bar_config(disable=True)
    done = pipe([1, 7], guidance_scale=2.0, num_inference_steps=6, output_type="np").images
    assert done.shape == (2, 8, 8, 3) and not (done[0] == done[1]).all()


def test_each_image_may_have_a_generator() -> None:
    made, n = scheduler(solver="ddpm"), 4
    g = [torch.Generator().manual_seed(i) for i in (1, 2)]
    both = looped(made, X, n, generator=g)
    alone = looped(made, X[1:], n, generator=[torch.Generator().manual_seed(2)])
    close(both[1:], alone, atol=1e-5, rtol=1e-4)


def test_what_no_pipeline_can_run_is_refused() -> None:
    with refused("AdaptiveRK spends what its tolerances ask for"):
        scheduler(solver="adaptive_dopri5").set_timesteps(10)
    with refused("PredictorCorrector.* has no program for a pipeline to run"):
        scheduler(solver="song_pc").set_timesteps(10)
    with refused("There is no solver 'dpmp'"):
        scheduler(solver="dpmp").set_timesteps(10)
    with refused("Call set_timesteps"):
        scheduler().step(X, 999, X)
    made = scheduler(solver="dpmpp")
    made.set_timesteps(5)
    with refused("998 is none of the timesteps"):
        made.step(X, 998, X)
    made = scheduler(solver="heun")
    made.set_timesteps(6)
    first = made.step(X, made.timesteps[0], X).prev_sample
    with refused("asks at timestep .* within a step, where it cannot begin"):
        made.step(X, made.timesteps[1], first + 1)
    flow = diffusers.FlowMatchEulerDiscreteScheduler()
    with refused("steps models of DDPM's betas, but this configuration has no beta_schedule"):
        SdegenScheduler.from_config(flow.config)
    with refused("DDPM's betas, but this configuration says use_flow_sigmas = True"):
        SdegenScheduler.from_config(diffusers.UniPCMultistepScheduler(use_flow_sigmas=True).config)


def mask_left(value: float = 0.3) -> Any:
    """What inpainting does: the left half of every state is known."""
    mask = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    mask[..., :4] = True
    return lambda i, x: torch.where(mask, value, x)


@pytest.mark.parametrize("solver", ["dpmpp", "unipc", "heun"])
def test_writing_at_every_step_traces_each_step_once(
    solver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole walk beforehand, and then no more steps than it has."""
    steps: list[int] = []
    traced = remembered.traced

    def counted(solver: Any, sde: Any, times: Tensor, *rest: Any, **more: Any) -> Any:
        steps.append(len(times) - 1)
        return traced(solver, sde, times, *rest, **more)

    monkeypatch.setattr(remembered, "traced", counted)
    remembered.remembered.cache_clear()
    made = scheduler(solver=solver)
    made.set_timesteps(12)
    n = made.plan.walk.steps
    state, begins = X, [*made.begins, made.last]
    for i, t in enumerate(made.timesteps):
        state = made.step(NET(state, t).sample.detach(), t, state).prev_sample
        state = mask_left()(i, state) if i + 1 in begins else state
    assert steps[0] == n and sum(steps) <= 2 * n, steps


@pytest.mark.parametrize(
    "how", [{"solver": "dpmpp"}, {"solver": "unipc"}, {"solver": "dpmpp", "eta": 0.8}], ids=str
)
def test_what_is_written_into_once_remembers_from_there(how: dict[str, Any]) -> None:
    """The rest is one solve from the written state on, memory, draws and all."""
    made, n, k = scheduler(**how), 8, 2
    g = torch.Generator().manual_seed(7)
    states: list[Tensor] = []

    def change(i: int, x: Tensor) -> Tensor:
        x = mask_left()(i, x) if i + 1 == k else x
        states.append(x)
        if i + 1 == k:
            draws.set_state(g.get_state())
        return x

    draws = torch.Generator()
    got = looped(made, X, n, change=change, generator=g)
    walk = made.plan.walk.times[k:]
    noise = sg.noise.Fresh(draws)
    how = {"solver": how["solver"], "eta": how.get("eta")}
    want = sg.sample(MODEL, states[k - 1], walk=walk, denoise=True, noise=noise, **how)
    close(got, want, atol=1e-5, rtol=0)


def test_inference_mode_is_no_gradients() -> None:
    """States that count no versions: the same end, and what is written in place is seen."""
    want = looped(scheduler(), X, 6)
    written = looped(scheduler(), X, 6, change=mask_left())
    assert not torch.equal(want, written)

    def in_place(i: int, x: Tensor) -> Tensor:
        x[..., :4] = 0.3
        return x

    with torch.inference_mode():
        close(looped(scheduler(), X.clone(), 6), want, atol=1e-6, rtol=0)
        close(looped(scheduler(), X.clone(), 6, change=in_place), written, atol=1e-6, rtol=0)
    cloned = looped(scheduler(), X, 6, change=lambda i, x: in_place(i, x).clone())
    close(cloned, written, atol=1e-6, rtol=0)


def test_ddim_pipeline_says_eta() -> None:
    """It turns what its constructor is given into DDIM; by assignment ours stays."""
    pipe = diffusers.DDIMPipeline(NET, PLAIN)
    pipe.set_progress_bar_config(disable=True)
    for how, eta in (({"solver": "dpmpp"}, 0.0), ({"solver": "ddpm"}, 1.0)):
        pipe.scheduler = scheduler(**how)
        g = torch.Generator().manual_seed(3)
        done = pipe(2, g, eta=eta, num_inference_steps=5, output_type="np").images
        g = torch.Generator().manual_seed(3)
        start = torch.randn(2, 1, 8, 8, generator=g)
        want = looped(scheduler(**how), start, 5, generator=g)
        close(done, (want / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1), atol=1e-6, rtol=0)
        with refused(r"The pipeline says eta = 0.5, but .* steps here with eta = "):
            pipe(2, eta=0.5, num_inference_steps=5)
    made = scheduler()
    made.set_timesteps(4)
    with pytest.raises(TypeError, match="strength"):
        made.step(X, made.timesteps[0], X, strength=1)
    made.step(X, made.timesteps[0], X, use_clipped_model_output=False)
    made = scheduler(clip_sample=True)
    made.set_timesteps(4)
    made.step(X, made.timesteps[0], X, use_clipped_model_output=True)
    with refused("use_clipped_model_output = False keeps the eps of before the clip"):
        made.step(X, made.timesteps[0], X, use_clipped_model_output=False)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda made: pickle.loads(pickle.dumps(made))])
def test_a_copy_begins_anew_where_it_is(copied: Any) -> None:
    made = scheduler(solver="dpmpp")
    made.set_timesteps(6)
    x, k = X, 3
    with torch.no_grad():
        for t in made.timesteps[:k]:
            x = made.step(NET(x, t).sample, t, x).prev_sample
        twin, y = copied(made), x
        for t in made.timesteps[k:]:
            x = made.step(NET(x, t).sample, t, x).prev_sample
        end = y
        for t in twin.timesteps[k:]:
            end = twin.step(NET(end, t).sample, t, end).prev_sample
    close(x, looped(scheduler(solver="dpmpp"), X, 6), atol=1e-6, rtol=0)
    want = sg.sample(MODEL, y, solver="dpmpp", walk=made.plan.walk.times[k:], denoise=True)
    close(end, want, atol=1e-5, rtol=0)


@pytest.mark.parametrize("how", [{}, {"solver": "heun"}, {"walk": "leading"}], ids=str)
def test_one_call_is_x0_of_noise(how: dict[str, Any]) -> None:
    """As DDIMScheduler's one trailing step."""
    theirs = diffusers.DDIMScheduler(clip_sample=False, timestep_spacing="trailing")
    got = looped(scheduler(**how), X, 1)
    close(got, MODEL(X, MODEL.sde(1.0)).x0.detach(), rtol=0, atol=0)
    want = looped(theirs, X, 1)
    close(got, want, rtol=0, atol=1e-4 * float(want.abs().max()))
    assert len(looped(scheduler(denoise=False, solver="dpmpp"), X, 1)) == 2
    for n in (0, 1.5):
        with refused("num_inference_steps"):
            scheduler().set_timesteps(n)


@pytest.mark.parametrize("strength", [0.3, 0.5, 0.8])
def test_strength_begins_where_theirs_does_on_trailing_steps(strength: float) -> None:
    """On log_snr, the default, it begins much nearer the data: the table of docs/diffusers.md."""
    betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    leading = diffusers.DDIMScheduler(**betas, steps_offset=1)
    trailing = diffusers.DDIMScheduler(**betas, timestep_spacing="trailing")

    def rho(made: Any) -> float:
        """Where 20 steps of that strength begin, as StableDiffusionImg2ImgPipeline cuts them."""
        made.set_timesteps(20)
        t = made.timesteps[20 - int(20 * strength)]
        if isinstance(made, SdegenScheduler):
            return float(made.said.sde((float(t) + 1) / 1000).rho)
        a = float(made.alphas_cumprod[t])
        return ((1 - a) / a) ** 0.5

    ours = [
        rho(SdegenScheduler.from_config(leading.config, **how))
        for how in ({}, {"solver": "dpmpp", "walk": "trailing"})
    ]
    close(ours[1], rho(trailing), rtol=1e-4)
    assert ours[0] < 0.75 * rho(leading)
    page = (ROOT / "docs" / "diffusers.md").read_text(encoding="utf-8")
    line = next(each for each in page.splitlines() if each.startswith(f"| {strength} |"))
    said = [float(cell) for cell in line.strip("| ").split(" | ")]
    measured = [*ours, rho(trailing), rho(leading)]
    assert said == [strength, *(float(f"{v:.2g}") for v in measured)], measured


@pytest.mark.parametrize("predicts", ["v_prediction", "sample"])
@pytest.mark.parametrize("n", [1, 8])
def test_zero_terminal_snr_takes_trailing_steps(predicts: str, n: int) -> None:
    """With nothing said but the configuration; DDIM on them is theirs."""
    theirs = diffusers.DDIMScheduler(
        rescale_betas_zero_snr=True,
        prediction_type=predicts,
        clip_sample=False,
        timestep_spacing="trailing",
    )
    theirs.set_timesteps(n)
    for solver in ("recommended", "dpmpp", "ddim"):
        made = SdegenScheduler.from_config(theirs.config, solver=solver)
        got = looped(made, X, n)
        assert made.timesteps.tolist() == theirs.timesteps.tolist()
        assert bool(got.isfinite().all())
    want = looped(theirs, X, n)
    close(got, want, rtol=0, atol=1e-5 * float(want.abs().max()))
    with refused("rescale_betas_zero_snr = True leaves no signal .* 'v_prediction' or 'sample'"):
        SdegenScheduler(rescale_betas_zero_snr=True)
    if n > 1:
        with refused("UniPC .* has no value at t = 1"):
            SdegenScheduler.from_config(theirs.config, solver="unipc").set_timesteps(n)


def test_a_guidance_scale_is_what_sample_knows() -> None:
    """The scheduler's solver is that of a guided model of this strength."""
    for scale in (1.0, 7.5):
        made = scheduler(guidance_scale=scale)
        made.set_timesteps(10)
        want = sg.recipes.recommended(9, scale)["solver"]  # and the call that denoises
        assert made.plan.solver == want
    with refused("guidance_scale"):
        scheduler(guidance_scale="high")
