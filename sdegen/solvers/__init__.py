"""Solvers, one file a family: each takes a state from one level to the next."""

from sdegen.solvers.adams import AdaptiveMultistep
from sdegen.solvers.backends import SciPy, TorchDiffEq, TorchSDE
from sdegen.solvers.classical import RK3, RK4, RK5, Euler, Heun, RungeKutta
from sdegen.solvers.correctors import AnnealedLangevin, Corrector, Langevin, PredictorCorrector
from sdegen.solvers.deis import DEIS, ERSDE, IPNDM, PLMS
from sdegen.solvers.multistep import (
    DPMSolverMultistep,
    DPMSolverPP,
    LinearMultistep,
    Multistep,
    SASolver,
    UniPC,
)
from sdegen.solvers.pairs import AdaptiveDPM, AdaptiveRK, GottaGoFast
from sdegen.solvers.singlestep import DPMSolver, DPMSolverPPSinglestep, Singlestep
from sdegen.solvers.solver import Preset, Solver, Status, Step, Tally
from sdegen.solvers.stochastic import (
    DDIM,
    SRA1,
    Ancestral,
    EulerMaruyama,
    ReverseDiffusion,
    StochasticHeun,
)

__all__ = [
    "DDIM",
    "DEIS",
    "ERSDE",
    "IPNDM",
    "PLMS",
    "RK3",
    "RK4",
    "RK5",
    "SRA1",
    "AdaptiveDPM",
    "AdaptiveMultistep",
    "AdaptiveRK",
    "Ancestral",
    "AnnealedLangevin",
    "Corrector",
    "DPMSolver",
    "DPMSolverMultistep",
    "DPMSolverPP",
    "DPMSolverPPSinglestep",
    "Euler",
    "EulerMaruyama",
    "GottaGoFast",
    "Heun",
    "Langevin",
    "LinearMultistep",
    "Multistep",
    "PredictorCorrector",
    "Preset",
    "ReverseDiffusion",
    "RungeKutta",
    "SASolver",
    "SciPy",
    "Singlestep",
    "Solver",
    "Status",
    "Step",
    "StochasticHeun",
    "Tally",
    "TorchDiffEq",
    "TorchSDE",
    "UniPC",
]
