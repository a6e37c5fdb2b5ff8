"""Solvers, one file a family: each takes a state from one level to the next.

``catalogue`` lists them by the names that commands and tables know them by; ``register`` takes in
those of other packages.
"""

from sdegen.solvers.adams import AdaptiveMultistep
from sdegen.solvers.analytic import AnalyticDPM, analytic_dpm
from sdegen.solvers.backends import SciPy, TorchDiffEq, TorchSDE
from sdegen.solvers.blended import Blended
from sdegen.solvers.classical import RK3, RK4, RK5, Euler, Heun, RungeKutta
from sdegen.solvers.correctors import AnnealedLangevin, Corrector, Langevin, PredictorCorrector
from sdegen.solvers.deis import DEIS, ERSDE, IPNDM, PLMS
from sdegen.solvers.equation import Eta, Reverse, renoise
from sdegen.solvers.jump import Jump, Student
from sdegen.solvers.multistep import (
    DPMSolverMultistep,
    DPMSolverPP,
    LinearMultistep,
    Multistep,
)
from sdegen.solvers.pairs import AdaptiveDPM, AdaptiveRK, GottaGoFast
from sdegen.solvers.registry import Entry, catalogue, choosers, named, register
from sdegen.solvers.singlestep import DPMSolver, DPMSolverPPSinglestep, Singlestep
from sdegen.solvers.solver import Preset, Solver, Status, Step, Tally
from sdegen.solvers.splitting import Split
from sdegen.solvers.stabilised import STORK
from sdegen.solvers.stochastic import (
    DDIM,
    SRA1,
    Ancestral,
    EulerMaruyama,
    QuasiTaylor,
    ReverseDiffusion,
    StochasticHeun,
)
from sdegen.solvers.traits import Traits
from sdegen.solvers.tuned import Gain, Tuned
from sdegen.solvers.unipc import SASolver, UniPC
from sdegen.solvers.variances import Head, LearnedVariance, Range, Residual, Square

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
    "STORK",
    "AdaptiveDPM",
    "AdaptiveMultistep",
    "AdaptiveRK",
    "AnalyticDPM",
    "Ancestral",
    "AnnealedLangevin",
    "Blended",
    "Corrector",
    "DPMSolver",
    "DPMSolverMultistep",
    "DPMSolverPP",
    "DPMSolverPPSinglestep",
    "Entry",
    "Eta",
    "Euler",
    "EulerMaruyama",
    "Gain",
    "GottaGoFast",
    "Head",
    "Heun",
    "Jump",
    "Langevin",
    "LearnedVariance",
    "LinearMultistep",
    "Multistep",
    "PredictorCorrector",
    "Preset",
    "QuasiTaylor",
    "Range",
    "Residual",
    "Reverse",
    "ReverseDiffusion",
    "RungeKutta",
    "SASolver",
    "SciPy",
    "Singlestep",
    "Solver",
    "Split",
    "Square",
    "Status",
    "Step",
    "StochasticHeun",
    "Student",
    "Tally",
    "TorchDiffEq",
    "TorchSDE",
    "Traits",
    "Tuned",
    "UniPC",
    "analytic_dpm",
    "catalogue",
    "choosers",
    "named",
    "register",
    "renoise",
]
