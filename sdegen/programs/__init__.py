"""Solvers as straight-line programs: traced, laid out in buffers, remembered, shown as tables."""

from sdegen.programs.program import Program
from sdegen.programs.remembered import traced
from sdegen.programs.table import Table, tabulate
from sdegen.programs.trace import NotLinear

__all__ = ["NotLinear", "Program", "Table", "tabulate", "traced"]
