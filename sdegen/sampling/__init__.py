"""From noise to data: the loop, what its arguments say, published recipes, CUDA graphs."""

from sdegen.sampling import recipes
from sdegen.sampling.captured import Captured
from sdegen.sampling.march import Path, Solution, State, sample, solve

__all__ = ["Captured", "Path", "Solution", "State", "recipes", "sample", "solve"]
