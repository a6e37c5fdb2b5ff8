"""Solvers that come with a walk of their own."""

from __future__ import annotations

import sdegen as sg
from sdegen.distill import Consistency
from sdegen.exact.convergence import chain_of
from sdegen.exact.distributions import Gaussian
from sdegen.solvers import Student
from tests.cases import close, normal, refused

DATA = Gaussian([0.3, -0.2], [[0.5, 0.1], [0.1, 0.3]])


def test_whoever_steps_a_student_is_held_to_its_walk() -> None:
    """The loop itself, a table, a law, and what is made of a solver."""
    model, sde = sg.exact.exact_model(DATA, sg.VPSDE()), sg.VPSDE()
    times, others = (sg.walks.log_snr(sde, n) for n in (4, 6))
    student, x = Student(tuple(times.tolist())), normal(3, 2)
    own = sg.walks.Walk(sde, times.float())
    *_, last = sg.march(student, sg.Reverse(model), x, own)
    close(last.x, sg.sample(model, x, solver=student), 1e-5)
    for walk in (others, times[:-1], times[1:], 0.9 * times + 0.1 * sde.T):
        levels = sg.walks.levels(sde, walk)
        with refused("Student comes with its own walk of 4 steps, from t = 1 to 0.001, but"):
            next(sg.march(student, sg.Reverse(model), x, levels))
    with refused("Student comes with its own walk"):
        sg.programs.tabulate(student, others, sde)
    with refused("Student comes with its own walk"):
        chain_of(student, model, sg.walks.Walk(sde, others), 2)
    with refused("PredictorCorrector cannot be made of Student, which comes with its own walk"):
        sg.PredictorCorrector(student)
    with refused("Consistency cannot be made of Student"):
        Consistency(model, student)
