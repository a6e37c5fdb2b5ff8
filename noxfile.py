"""The versions that are claimed, tried: nox makes an environment for each and runs a short suite.

    pip install nox && nox

Python 3.10, 3.12 and 3.13, with the oldest and the newest torch; 3.11 is what everything else is
tested with (torch 2.13). All three have been run, the last with 3.12.

pip decides which build of torch it takes, as its own settings say.
"""

import nox

nox.options.error_on_missing_interpreters = True  # a version that was skipped was not tried
TORCH = {"3.10": "2.6.0", "3.12": "2.14.1", "3.13": "2.14.1"}
SHORT = [
    "tests/sde",
    "tests/model",
    "tests/noise",
    "tests/losses",
    "tests/sampling/test_citing.py",
]
"""What needs no other library, and the import and the catalogue of solvers."""


@nox.session
@nox.parametrize(("python", "torch"), list(TORCH.items()))
def short(session: nox.Session, torch: str) -> None:
    """The short suite on a version of Python and one of torch."""
    session.install(f"torch=={torch}")
    session.install("-e", ".", "pytest", "pytest-xdist", "hypothesis", "mpmath")
    # The newest torch warns of its own torch.jit.script where other libraries are imported.
    how = ["-q", "-k", "not diffusers", "-W", "default::FutureWarning"]
    session.run("python", "-m", "pytest", *how, *SHORT, *session.posargs)
