"""From noise to data: plans, the loop, who chooses a solver, published recipes, CUDA graphs."""

from sdegen.sampling import recipes
from sdegen.sampling.best import best_of
from sdegen.sampling.captured import Captured
from sdegen.sampling.choice import Chooser, Recommended
from sdegen.sampling.citing import cite
from sdegen.sampling.march import Path, Solution, State, sample, solve
from sdegen.sampling.plan import How, Plan, Way
from sdegen.sampling.renoising import resample
from sdegen.sampling.stages import Stage, cascade
from sdegen.sampling.tempering import Tempered, denoised, denoising_gibbs
from sdegen.sampling.watch import Watch, progress

__all__ = [
    "Captured",
    "Chooser",
    "How",
    "Path",
    "Plan",
    "Recommended",
    "Solution",
    "Stage",
    "State",
    "Tempered",
    "Watch",
    "Way",
    "best_of",
    "cascade",
    "cite",
    "denoised",
    "denoising_gibbs",
    "progress",
    "recipes",
    "resample",
    "sample",
    "solve",
]
