"""sdegen: the stochastic and ordinary differential equations of score-based generative models.

The names below are in the order of the story: a forward SDE, a score model of it, a loss to train
it on, solvers of the reverse equation, and the walk they take from noise to data.
"""

from sdegen.grids import karras, levels, log_snr, quadratic, uniform
from sdegen.losses import (
    EDMWeighting,
    LogNormalTime,
    MinSNR,
    dsm_loss,
    independent,
    likelihood_time,
    low_discrepancy,
    uniform_time,
)
from sdegen.march import Path, Solution, State, march, sample, solve
from sdegen.noise import Fresh, Noise, Seeded
from sdegen.recipes import DDPM
from sdegen.reverse import Reverse, renoise
from sdegen.schedules import EDM, Cosine, DiscreteVPSDE, Flow, MarginalSDE
from sdegen.score import ScoreModel
from sdegen.sde import SDE, VESDE, VPSDE, Instant, Level, LinearSDE, Prior, SubVPSDE
from sdegen.solvers import (
    DDIM,
    RK4,
    Ancestral,
    DPMSolverPP,
    Euler,
    EulerMaruyama,
    Heun,
    Langevin,
    PredictorCorrector,
    ReverseDiffusion,
    Solver,
    Status,
    Step,
    TorchDiffEq,
)

__version__ = "0.1.0"

__all__ = [
    "DDIM",
    "DDPM",
    "EDM",
    "RK4",
    "SDE",
    "VESDE",
    "VPSDE",
    "Ancestral",
    "Cosine",
    "DPMSolverPP",
    "DiscreteVPSDE",
    "EDMWeighting",
    "Euler",
    "EulerMaruyama",
    "Flow",
    "Fresh",
    "Heun",
    "Instant",
    "Langevin",
    "Level",
    "LinearSDE",
    "LogNormalTime",
    "MarginalSDE",
    "MinSNR",
    "Noise",
    "Path",
    "PredictorCorrector",
    "Prior",
    "Reverse",
    "ReverseDiffusion",
    "ScoreModel",
    "Seeded",
    "Solution",
    "Solver",
    "State",
    "Status",
    "Step",
    "SubVPSDE",
    "TorchDiffEq",
    "dsm_loss",
    "independent",
    "karras",
    "levels",
    "likelihood_time",
    "log_snr",
    "low_discrepancy",
    "march",
    "quadratic",
    "renoise",
    "sample",
    "solve",
    "uniform",
    "uniform_time",
]
