"""Samplers of other libraries on the same model, start and times, each as its users call it.

All run in float64, where differences are those of methods. Every linear SDE is one of noise beside
unit signal in y = x / alpha, or variance-preserving in x / sqrt(alpha^2 + sigma^2): there the
libraries find the process that they know. torchdiffeq, torchsde and SciPy are solvers of sdegen's
own, in ``sdegen.solvers.backends``.
"""

from __future__ import annotations

import importlib.util
import sys
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import torch
from torch import Tensor

from sdegen.bench.guided import network_of
from sdegen.bench.watch import Stopwatch
from sdegen.model.denoiser import Denoiser
from sdegen.sde.level import Level, expand
from sdegen.sde.process import LinearSDE
from sdegen.solvers.traits import Traits

SUPPORTED = {
    "diffusers": "0.42",
    "k-diffusion": "0.1",
    "azula": "0.11",
    "torchode": "1.0",
    "torchdiffeq": "0.2",
    "torchsde": "0.2",
    "SciPy": "1",
}
"""The releases whose insides the adapters know."""


def need(library: str) -> None:
    """ValueError if a library is missing or of another release."""
    try:
        version = metadata.version(library)
    except metadata.PackageNotFoundError:
        raise ValueError(f"{library} is not installed: see docs/benchmarks.md.") from None
    if not version.startswith(SUPPORTED[library] + "."):
        raise ValueError(
            f"{library} {version} is not supported: the comparison knows {SUPPORTED[library]}."
        )


class Peer(ABC):
    """A sampler of another library.  Frozen dataclasses of numbers and names."""

    library: ClassVar[str]
    evals: int = 1
    adaptive: bool = False
    eta: float = 0.0

    @property
    def traits(self) -> Traits:
        """In the words of our solvers; no order is claimed."""
        return Traits(order=0, calls=self.evals, adaptive=self.adaptive)

    def calls(self, steps: int) -> int:
        """Network calls of so many steps."""
        return self.evals * steps

    @abstractmethod
    def solve(self, model: Denoiser, x: Tensor, times: Tensor, tol: float | None) -> Tensor:
        """From x (b, *) at times[0] to times[-1], in float64; tol for those with steps of their
        own."""


def level_at(model: Denoiser, t: Tensor | None = None, rho: Tensor | None = None) -> Level:
    """The level at a time, or at one rho (b,) for all: not counted as the library's work."""
    watch, sde = network_of(model), linear(model)
    with watch.aside() if isinstance(watch, Stopwatch) else nullcontext():
        if rho is not None:
            t = sde.time(-rho.reshape(-1)[0].cpu().log())
        assert t is not None
        return sde(t.cpu())


def linear(model: Denoiser) -> LinearSDE:
    """The model's SDE."""
    assert isinstance(model.sde, LinearSDE)
    return model.sde


# ------------------------------------------------------------------------------------ k-diffusion


@cache
def k_sampling() -> ModuleType:
    """k_diffusion/sampling.py alone: the package around it imports what it does not need."""
    package = importlib.util.find_spec("k_diffusion")
    if package is None or not package.submodule_search_locations:
        raise ImportError("k_diffusion is not installed")
    parent, utils = ModuleType("k_alone"), ModuleType("k_alone.utils")
    utils.append_dims = lambda x, n: x.reshape(*x.shape, *[1] * (n - x.ndim))  # type: ignore[attr-defined]
    parent.utils = utils  # type: ignore[attr-defined]
    sys.modules.update({"k_alone": parent, "k_alone.utils": utils})
    path = Path(package.submodule_search_locations[0]) / "sampling.py"
    spec = importlib.util.spec_from_file_location("k_alone.sampling", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass(frozen=True)
class KDiffusion(Peer):
    """k-diffusion's sample_<method>, in y = x / alpha and sigma = rho."""

    method: str
    evals: int = 1
    eta: float = 0.0
    adaptive: bool = False
    library = "k-diffusion"

    def solve(self, model: Denoiser, x: Tensor, times: Tensor, tol: float | None) -> Tensor:
        """On our levels; "dpm_fast" and "dpm_adaptive" choose theirs between the ends."""
        need(self.library)
        sde = linear(model)
        stops = sde(times)

        def denoise(y: Tensor, sigma: Tensor) -> Tensor:
            level = level_at(model, rho=sigma)
            return model(expand(level.alpha, y) * y, level).x0

        run = getattr(k_sampling(), f"sample_{self.method}")
        y, sigmas = x / expand(stops.alpha[0], x), stops.rho.to(x)
        how: dict[str, Any] = {"disable": True}
        span = float(sigmas[-1]), float(sigmas[0])
        if self.adaptive:
            with float64():
                end = run(denoise, y, *span, rtol=tol, atol=tol, **how)
        elif self.method == "dpm_fast":
            with float64():
                end = run(denoise, y, *span, len(times) - 1, **how)
        else:
            if self.method.endswith("ancestral"):
                how["eta"] = self.eta
            if "sde" in self.method:
                how |= {"eta": self.eta, "noise_sampler": lambda a, b: torch.randn_like(y)}
            end = run(denoise, y, sigmas, **how)
        return end * expand(stops.alpha[-1], x)


# -------------------------------------------------------------------------------------- diffusers


class Double(Tensor):
    """A float64 state that stays one where a scheduler "upcasts" its sample to float32."""

    def to(self, *args: Any, **kwargs: Any) -> Tensor:
        """As any tensor's, but for float32."""
        return self if args == (torch.float32,) else super().to(*args, **kwargs)


@contextmanager
def float64() -> Iterator[None]:
    """Tensors that others make of Python numbers are float64 here."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@dataclass(frozen=True)
class Diffusers(Peer):
    """diffusers' <scheduler>Scheduler on eps, in x / sqrt(alpha^2 + sigma^2), with our sigmas.

    Its defaults stand, but for the last sigma, which is ours and not zero.
    """

    scheduler: str
    config: dict[str, Any] = field(default_factory=dict)
    eta: float = 0.0
    library = "diffusers"

    def solve(self, model: Denoiser, x: Tensor, times: Tensor, tol: float | None) -> Tensor:
        """Its loop: one call of the network, one ``step``."""
        need(self.library)
        import diffusers

        diffusers.utils.logging.set_verbosity_error()  # it warns of its own defaults
        sde = linear(model)
        stops = sde(times)
        norm = (stops.alpha**2 + stops.sigma**2).sqrt()
        with float64(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            config = {"final_sigmas_type": "sigma_min", **self.config}
            if self.scheduler in ("DEISMultistep", "SASolver"):
                del config["final_sigmas_type"]
            made = getattr(diffusers, f"{self.scheduler}Scheduler")(**config)
            made.set_timesteps(len(times) - 1)
            made.set_begin_index(0)
            made.sigmas = stops.rho.to(x)
            y = (x / expand(norm[0], x)).as_subclass(Double)
            if self.scheduler == "DPMSolverSinglestep":
                made.order_list = made.get_order_list(len(times) - 1)
            for i, t in enumerate(made.timesteps):
                level = level_at(model, times[i])
                eps = model(expand(norm[i], x) * y.as_subclass(Tensor), level).eps
                y = made.step(eps.as_subclass(Double), t, y).prev_sample.as_subclass(Double)
        return y.as_subclass(Tensor) * expand(norm[-1], x)


# ------------------------------------------------------------------------------------------ azula


@dataclass(frozen=True)
class Azula(Peer):
    """azula's <sampler>Sampler on the SDE's own alpha and sigma, at our times."""

    sampler: str
    order: int = 0
    evals: int = 1
    eta: float = 0.0
    library = "azula"

    def solve(self, model: Denoiser, x: Tensor, times: Tensor, tol: float | None) -> Tensor:
        """Its own loop, which asks ``timesteps`` where to stop."""
        need(self.library)
        import azula.denoise
        import azula.noise
        import azula.sample

        class Ours(azula.noise.Schedule):  # type: ignore[misc]
            def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
                level = level_at(model, t)
                return level.alpha.to(t), level.sigma.to(t)

        class Guess(azula.denoise.Denoiser):  # type: ignore[misc]
            schedule = Ours()

            def forward(self, x: Tensor, t: Tensor) -> Any:
                return azula.denoise.DiracPosterior(mean=model(x, level_at(model, t)).x0)

        named = getattr(azula.sample, f"{self.sampler}Sampler")
        at_ours = type(named.__name__, (named,), {"timesteps": property(lambda self: times)})
        how: dict[str, Any] = {"order": self.order} if self.order else {}
        if self.sampler in ("DDIM", "Ito"):
            how["eta"] = self.eta
        end: Tensor = at_ours(Guess(), steps=len(times) - 1, silent=True, **how)(x)
        return end


# --------------------------------------------------------------------------------------- torchode


@dataclass(frozen=True)
class TorchODE(Peer):
    """torchode on the probability flow in t, where each sample has steps of its own."""

    method: str = "dopri5"
    evals: int = 0
    adaptive: bool = True
    library = "torchode"

    def solve(self, model: Denoiser, x: Tensor, times: Tensor, tol: float | None) -> Tensor:
        """Over s = T - t, since it knows no time that falls."""
        need(self.library)
        import torchode

        sde = linear(model)
        b, T = len(x), times[0].to(x)

        def slope(s: Tensor, y: Tensor) -> Tensor:
            level = level_at(model, (T - s).clamp(sde.t_min, sde.T))
            return -model(y.reshape(x.shape), level).velocity.reshape(b, -1)

        assert tol is not None
        term = torchode.ODETerm(slope)
        method = {"dopri5": torchode.Dopri5, "tsit5": torchode.Tsit5}[self.method](term)
        control = torchode.IntegralController(atol=tol, rtol=tol, term=term)
        ends = torch.stack([0 * T, T - times[-1].to(x)]).expand(b, 2)
        problem = torchode.InitialValueProblem(y0=x.reshape(b, -1), t_eval=ends)
        solver = torchode.AutoDiffAdjoint(method, control)
        found: Tensor = solver.solve(problem).ys[:, -1]
        return found.reshape(x.shape)


DPM = {"algorithm_type": "dpmsolver"}
KEEP = {"lower_order_final": False}
"""By default the last of fewer than 15 steps are of lower order, for the sake of a last sigma of
zero; where it is not, that helps at 5 calls and costs at 10: both are here."""
PEERS: dict[str, Peer] = {
    "k_euler": KDiffusion("euler"),
    "k_heun": KDiffusion("heun", evals=2),
    "k_dpm_2": KDiffusion("dpm_2", evals=2),
    "k_lms": KDiffusion("lms"),
    "k_dpm_fast": KDiffusion("dpm_fast"),
    "k_dpmpp_2m": KDiffusion("dpmpp_2m"),
    "k_dpmpp_2s": KDiffusion("dpmpp_2s_ancestral", evals=2),
    "k_dpm_adaptive": KDiffusion("dpm_adaptive", adaptive=True),
    "k_euler_ancestral": KDiffusion("euler_ancestral", eta=1.0),
    "k_dpmpp_2m_sde": KDiffusion("dpmpp_2m_sde", eta=1.0),
    "k_dpmpp_3m_sde": KDiffusion("dpmpp_3m_sde", eta=1.0),
    "diffusers_dpmpp_2m": Diffusers("DPMSolverMultistep"),
    "diffusers_dpmpp_3m": Diffusers("DPMSolverMultistep", {"solver_order": 3}),
    "diffusers_dpm_2m": Diffusers("DPMSolverMultistep", DPM),
    "diffusers_dpm_3m": Diffusers("DPMSolverMultistep", {"solver_order": 3, **DPM}),
    "diffusers_dpmpp_single_2": Diffusers("DPMSolverSinglestep"),
    "diffusers_dpmpp_single_3": Diffusers("DPMSolverSinglestep", {"solver_order": 3}),
    "diffusers_unipc_2": Diffusers("UniPCMultistep"),
    "diffusers_unipc_3": Diffusers("UniPCMultistep", {"solver_order": 3}),
    "diffusers_unipc_3_bh1": Diffusers(
        "UniPCMultistep", {"solver_order": 3, "solver_type": "bh1"}
    ),
    "diffusers_deis_2": Diffusers("DEISMultistep"),
    "diffusers_deis_3": Diffusers("DEISMultistep", {"solver_order": 3}),
    "diffusers_dpmpp_2m_keep": Diffusers("DPMSolverMultistep", KEEP),
    "diffusers_dpmpp_3m_keep": Diffusers("DPMSolverMultistep", {"solver_order": 3, **KEEP}),
    "diffusers_unipc_2_keep": Diffusers("UniPCMultistep", KEEP),
    "diffusers_unipc_3_keep": Diffusers("UniPCMultistep", {"solver_order": 3, **KEEP}),
    "diffusers_deis_3_keep": Diffusers("DEISMultistep", {"solver_order": 3, **KEEP}),
    "diffusers_sde_dpmpp_2m": Diffusers(
        "DPMSolverMultistep", {"algorithm_type": "sde-dpmsolver++"}, eta=1.0
    ),
    "azula_ddim": Azula("DDIM"),
    "azula_heun": Azula("Heun", evals=2),
    "azula_xab_2": Azula("xEAB", 2),
    "azula_xab_3": Azula("xEAB", 3),
    "azula_xab_4": Azula("xEAB", 4),
    "azula_zab_3": Azula("zEAB", 3),
    "azula_vab_3": Azula("vAB", 3),
    "azula_reab_3": Azula("REAB", 3),
    "azula_ddpm": Azula("DDIM", eta=1.0),
    "torchode_dopri5": TorchODE("dopri5"),
    "torchode_tsit5": TorchODE("tsit5"),
}
