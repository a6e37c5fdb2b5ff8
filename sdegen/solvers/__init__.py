"""Solvers, one file a family: each takes a state from one level to the next."""

from sdegen.solvers.backends import TorchDiffEq
from sdegen.solvers.classical import RK4, Euler, Heun, RungeKutta
from sdegen.solvers.correctors import Langevin, PredictorCorrector
from sdegen.solvers.exponential import DPMSolverPP
from sdegen.solvers.solver import Solver, Step
from sdegen.solvers.stochastic import DDIM, Ancestral, EulerMaruyama, ReverseDiffusion

__all__ = [
    "DDIM",
    "RK4",
    "Ancestral",
    "DPMSolverPP",
    "Euler",
    "EulerMaruyama",
    "Heun",
    "Langevin",
    "PredictorCorrector",
    "ReverseDiffusion",
    "RungeKutta",
    "Solver",
    "Step",
    "TorchDiffEq",
]
