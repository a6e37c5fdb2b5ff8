"""What faults.py tries on calls, and how it counts: all that may die, forked."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import sdegen as sg
from sdegen.networks import MLP

SENTENCE, CRASH, GONE = 2, 3, -signal.SIGKILL
"""How a child ends that does not end well."""


class Found:
    """How many of a kind were tried, how each ended, and what should not have been."""

    def __init__(self) -> None:
        self.ends, self.wrong = Counter[str](), list[str]()
        self.about = dict[str, Any]()  # what else a record says

    def add(self, end: str, fine: bool, what: str = "") -> None:
        """One more."""
        self.ends[end] += 1
        if not fine:
            self.wrong.append(f"{end}: {what}"[:300])

    @property
    def summary(self) -> dict[str, Any]:
        """As a record."""
        tried = sum(self.ends.values())
        return {
            "tried": tried,
            "survived": tried - len(self.wrong),
            "ends": dict(self.ends),
            "wrong": self.wrong[:20],
            **self.about,
        }


def forked(work: Callable[[], Any], after: float | None = None) -> int:
    """A child's exit status: 0, SENTENCE, CRASH, or GONE where it was killed ``after`` seconds."""
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        status = CRASH
        try:
            work()
            status = 0
        except (ValueError, OSError):
            status = SENTENCE
        except BaseException:
            traceback.print_exc()
        os._exit(status)
    if after is not None:
        time.sleep(after)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def odd_call(dice: random.Random) -> dict[str, Any]:
    """Arguments of ``sample``, some of them odd."""
    usual: dict[str, list[Any]] = {
        "start": [(3, 2), (1, 2), torch.zeros(2, 2), torch.zeros(2, 2).double()],
        "solver": [sg.DDIM(), sg.Heun(), "unipc", sg.EulerMaruyama(), None, "dpmpp"],
        "steps": [1, 2, 5],
    }
    odd: dict[str, list[Any]] = {
        "start": [3, (), (0, 2), (2.5, 2), "32", None, np.zeros((2, 2)), (2, 3)],
        "states": [torch.full((2, 2), torch.nan), torch.zeros(2, 2, dtype=torch.bfloat16)],
        "solver": ["no such", 5, sg.DDIM, sg.Langevin(), sg.AdaptiveRK(), "auto", {}, ["ddim"]],
        "steps": ["3", 0, -1, 2.5, True, None, 10**30, float("nan")],
        "nfe": [4, 0, "7", 3.5, None, -2],
        "walk": ["uniform", "karras", "spiral", [1.0, 0.1], [0.1, 1.0], [1.0, 1.0], [], "", 7],
        "times": [np.linspace(1, 0.1, 4), [float("nan"), 0.1], [2.0, 0.1], lambda sde, n: None],
        "eta": [0.0, 1.0, -1, "1", float("inf"), lambda lam: lam * 0 + 0.5, [1.0], None],
        "seed": [0, -1, 2**70, "0", 1.5, [1, 2], [1, 2, 3], torch.Generator(), None],
        "noise": [None, 3, torch.randn, sg.Brownian(0, 1.0), sg.Seeded(0)],
        "denoise": [True, False, "yes", 1, None],
        "graph": [True, "checkpoint", "yes", 0],
        "t": [0.5, "0.5", -1.0, 2.0, None, float("nan")],
        "stepz": [3],
    }
    how = {name: dice.choice(values) for name, values in usual.items()}
    for name in dice.sample([*odd], dice.randrange(1, 4)):
        how[{"states": "start", "times": "walk"}.get(name, name)] = dice.choice(odd[name])
    return how


def calls(n: int, dice: random.Random) -> Found:
    """Odd calls of ``sample``: samples, or a sentence."""
    found, model = Found(), sg.ScoreModel(MLP(dim=2, width=8, depth=1), sg.VPSDE())

    def too_long(*_: Any) -> None:
        raise TimeoutError

    signal.signal(signal.SIGALRM, too_long)
    for _ in range(n):
        how = odd_call(dice)
        signal.alarm(60)
        try:
            sg.sample(model, how.pop("start"), **how)
            found.add("samples", True)
        except ValueError:
            found.add("a sentence", True)
        except TypeError as error:  # of an argument that there is not
            found.add("a sentence", "stepz" in how, f"{how}: {error}")
        except Exception as error:
            found.add("a crash", False, f"{how}: {type(error).__name__}: {error}")
        finally:
            signal.alarm(0)
    return found
