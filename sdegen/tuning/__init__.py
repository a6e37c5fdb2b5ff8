"""Solvers chosen for a model and a budget, or fitted to them."""

from sdegen.tuning.fitting import tune
from sdegen.tuning.probes import Choice, choose

__all__ = ["Choice", "choose", "tune"]
