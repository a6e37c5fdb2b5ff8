"""Solvers, one file a family: each takes a state from one level to the next."""

from sdegen.solvers.backends import TorchDiffEq
from sdegen.solvers.classical import RK4, Euler, Heun, RungeKutta
from sdegen.solvers.correctors import Langevin, PredictorCorrector
from sdegen.solvers.multistep import DPMSolverPP
from sdegen.solvers.solver import Solver, Status, Step
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
    "Status",
    "Step",
    "TorchDiffEq",
]
