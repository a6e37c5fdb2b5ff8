"""sdegen: the stochastic and ordinary differential equations of score-based generative models.

The names below are in the order of the story: a forward SDE, a score model of it, a loss to train
it on, solvers of the reverse equation, and the walk they take from noise to data. Each room of the
package is a namespace with the rest: ``sdegen.solvers``, ``sdegen.walks``, ``sdegen.likelihood``.
"""

from typing import Any

from sdegen import (
    distill,
    editing,
    exact,
    guidance,
    likelihood,
    losses,
    model,
    noise,
    programs,
    sampling,
    sde,
    solvers,
    text,
    tuning,
    walks,
)
from sdegen.likelihood import bits_per_dim, decode, elbo, encode, log_prob
from sdegen.losses import dsm_loss
from sdegen.model import ScoreModel
from sdegen.noise import Brownian, Noise, Seeded
from sdegen.runs.folder import load
from sdegen.sampling import Solution, cite, progress, recipes, sample, solve
from sdegen.sampling.march import march
from sdegen.sampling.recipes import DDPM
from sdegen.sde import (
    EDMSDE,
    SDE,
    VESDE,
    VPSDE,
    CosineSDE,
    DiscreteVPSDE,
    FlowSDE,
    Level,
    LinearSDE,
    MarginalSDE,
    Prior,
    SubVPSDE,
)
from sdegen.solvers import (
    DDIM,
    RK4,
    AdaptiveRK,
    Ancestral,
    DPMSolver,
    DPMSolverPP,
    Euler,
    EulerMaruyama,
    Heun,
    Langevin,
    Multistep,
    PredictorCorrector,
    Reverse,
    Solver,
    Status,
    Step,
    Traits,
    UniPC,
)
from sdegen.tuning import tune

__version__ = "0.1.0"

ROOMS = (
    sde,
    noise,
    model,
    walks,
    solvers,
    guidance,
    programs,
    sampling,
    likelihood,
    losses,
    tuning,
    exact,
    editing,
    distill,
)


def __getattr__(name: str) -> Any:
    """An SDE by the name it had; or where a name is that a room has and the top does not."""
    if name in sde.RENAMED:
        return getattr(sde, name)
    for room in ROOMS:
        if name in room.__all__:
            raise AttributeError(f"sdegen has no {name} itself: it is {room.__name__}.{name}.")
    raise AttributeError(f"sdegen has no {name}.")


__all__ = [
    "DDIM",
    "DDPM",
    "EDMSDE",
    "RK4",
    "SDE",
    "VESDE",
    "VPSDE",
    "AdaptiveRK",
    "Ancestral",
    "Brownian",
    "CosineSDE",
    "DPMSolver",
    "DPMSolverPP",
    "DiscreteVPSDE",
    "Euler",
    "EulerMaruyama",
    "FlowSDE",
    "Heun",
    "Langevin",
    "Level",
    "LinearSDE",
    "MarginalSDE",
    "Multistep",
    "Noise",
    "PredictorCorrector",
    "Prior",
    "Reverse",
    "ScoreModel",
    "Seeded",
    "Solution",
    "Solver",
    "Status",
    "Step",
    "SubVPSDE",
    "Traits",
    "UniPC",
    "bits_per_dim",
    "cite",
    "decode",
    "distill",
    "dsm_loss",
    "editing",
    "elbo",
    "encode",
    "exact",
    "guidance",
    "likelihood",
    "load",
    "log_prob",
    "losses",
    "march",
    "model",
    "noise",
    "programs",
    "progress",
    "recipes",
    "sample",
    "sampling",
    "sde",
    "solve",
    "solvers",
    "text",
    "tune",
    "tuning",
    "walks",
]
