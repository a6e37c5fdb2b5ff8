"""The versions that are claimed, tried: nox makes an environment for each and runs a short suite.

    pip install nox && nox

Python 3.10, 3.12 and 3.13, with the oldest and the newest torch; 3.11 is what everything else is
tested with. pip decides which build of torch it takes, as its own settings say.
"""

import nox

TORCH = {"3.10": "2.6.0", "3.12": "2.14.1", "3.13": "2.14.1"}
SHORT = ["tests/sde", "tests/model", "tests/walks", "tests/noise", "tests/losses", "tests/exact",
         "tests/programs", "tests/sampling/test_citing.py", "tests/solvers/test_orders.py",
         "tests/data", "tests/training", "tests/runs/test_settings.py"]  # fmt: skip
"""Rooms that a new version breaks first, of every floor."""


@nox.session
@nox.parametrize(("python", "torch"), list(TORCH.items()))
def short(session: nox.Session, torch: str) -> None:
    """The short suite on a version of Python and one of torch."""
    session.install(f"torch=={torch}")
    session.install("-e", ".", "pytest", "pytest-xdist", "hypothesis", "mpmath")
    session.run("python", "-m", "pytest", "-q", *SHORT, *session.posargs)
