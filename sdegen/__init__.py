"""sdegen: the stochastic and ordinary differential equations of score-based generative models.

The names below are in the order of the story: a forward SDE, a score model of it, a loss to train
it on, solvers of the reverse equation, and the walk they take from noise to data.
"""

from sdegen import recipes
from sdegen.analytic_dpm import AnalyticDPM, analytic_dpm
from sdegen.bits import Bits, bits_per_dim, dequantised
from sdegen.bounds import Elbo, LamTimes, discrete_elbo, elbo, fitted
from sdegen.brownian import Brownian
from sdegen.capture import Captured
from sdegen.catalogue import catalogue
from sdegen.divergence import Divergence
from sdegen.flow import decode, encode, slerp
from sdegen.grids import focused, karras, levels, log_snr, quadratic, uniform
from sdegen.likelihood import LogProb, log_prob
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
from sdegen.probe import Choice, choose
from sdegen.program import Program, traced
from sdegen.recipes import DDPM
from sdegen.reverse import Reverse, renoise
from sdegen.schedules import EDM, Cosine, DiscreteVPSDE, Flow, MarginalSDE
from sdegen.score import ScoreModel
from sdegen.sde import SDE, VESDE, VPSDE, Instant, Level, LinearSDE, Prior, SubVPSDE
from sdegen.solvers import (
    DDIM,
    DEIS,
    ERSDE,
    IPNDM,
    PLMS,
    RK3,
    RK4,
    RK5,
    SRA1,
    AdaptiveDPM,
    AdaptiveMultistep,
    AdaptiveRK,
    Ancestral,
    AnnealedLangevin,
    DPMSolver,
    DPMSolverMultistep,
    DPMSolverPP,
    DPMSolverPPSinglestep,
    Euler,
    EulerMaruyama,
    GottaGoFast,
    Heun,
    Langevin,
    LinearMultistep,
    Multistep,
    PredictorCorrector,
    Preset,
    ReverseDiffusion,
    SASolver,
    SciPy,
    Singlestep,
    Solver,
    Status,
    Step,
    StochasticHeun,
    Tally,
    TorchDiffEq,
    TorchSDE,
    UniPC,
)
from sdegen.table import Table, tabulate
from sdegen.trace import NotLinear
from sdegen.tuned import Gain, Tuned
from sdegen.tuning import tune
from sdegen.vdm import LearnedVP, vdm_loss
from sdegen.walks import ancestral, churn, repaint, restart, zigzag

__version__ = "0.1.0"

__all__ = [
    "DDIM",
    "DDPM",
    "DEIS",
    "EDM",
    "ERSDE",
    "IPNDM",
    "PLMS",
    "RK3",
    "RK4",
    "RK5",
    "SDE",
    "SRA1",
    "VESDE",
    "VPSDE",
    "AdaptiveDPM",
    "AdaptiveMultistep",
    "AdaptiveRK",
    "AnalyticDPM",
    "Ancestral",
    "AnnealedLangevin",
    "Bits",
    "Brownian",
    "Captured",
    "Choice",
    "Cosine",
    "DPMSolver",
    "DPMSolverMultistep",
    "DPMSolverPP",
    "DPMSolverPPSinglestep",
    "DiscreteVPSDE",
    "Divergence",
    "EDMWeighting",
    "Elbo",
    "Euler",
    "EulerMaruyama",
    "Flow",
    "Fresh",
    "Gain",
    "GottaGoFast",
    "Heun",
    "Instant",
    "LamTimes",
    "Langevin",
    "LearnedVP",
    "Level",
    "LinearMultistep",
    "LinearSDE",
    "LogNormalTime",
    "LogProb",
    "MarginalSDE",
    "MinSNR",
    "Multistep",
    "Noise",
    "NotLinear",
    "Path",
    "PredictorCorrector",
    "Preset",
    "Prior",
    "Program",
    "Reverse",
    "ReverseDiffusion",
    "SASolver",
    "SciPy",
    "ScoreModel",
    "Seeded",
    "Singlestep",
    "Solution",
    "Solver",
    "State",
    "Status",
    "Step",
    "StochasticHeun",
    "SubVPSDE",
    "Table",
    "Tally",
    "TorchDiffEq",
    "TorchSDE",
    "Tuned",
    "UniPC",
    "analytic_dpm",
    "ancestral",
    "bits_per_dim",
    "catalogue",
    "choose",
    "churn",
    "decode",
    "dequantised",
    "discrete_elbo",
    "dsm_loss",
    "elbo",
    "encode",
    "fitted",
    "focused",
    "independent",
    "karras",
    "levels",
    "likelihood_time",
    "log_prob",
    "log_snr",
    "low_discrepancy",
    "march",
    "quadratic",
    "recipes",
    "renoise",
    "repaint",
    "restart",
    "sample",
    "slerp",
    "solve",
    "tabulate",
    "traced",
    "tune",
    "uniform",
    "uniform_time",
    "vdm_loss",
    "zigzag",
]
