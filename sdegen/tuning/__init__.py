"""Solvers chosen for a model and a budget, or fitted to them."""

from sdegen.tuning.fitting import tune
from sdegen.tuning.probes import Auto, Choice, choose

__all__ = ["Auto", "Choice", "choose", "tune"]
