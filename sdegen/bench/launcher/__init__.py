"""The jobs of a sweep in several processes, with a progress bar, as a Hydra launcher.

Hydra takes launchers from the package hydra_plugins alone: this file is installed as part of it,
under a name that begins with _, so that no other program's Hydra loads it.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from sdegen.workers import prepare

SETTINGS = {"_target_": "hydra_plugins._sdegen.Processes", "processes": None}
"""Of ``hydra/launcher=processes``; null: one process for each core."""


def attempt(task: Callable[[dict[str, Any]], None], config: dict[str, Any]) -> str | None:
    """A job in a worker: None, or the sentence it failed with."""
    try:
        task(config)
    except (ValueError, OSError) as error:
        return " ".join(str(error).split())
    except Exception:  # a bug of one job is not to cost the others
        return traceback.format_exc()
    return None


class Processes(Launcher):
    """Each job gets the resolved configuration, with the names that were chosen in ``choices``.

    A job that fails says so, and the others go on; ValueError at the end if there were any, after
    all that could be done was. Ctrl-C ends the running jobs and starts no other.
    """

    def __init__(self, processes: int | None = None) -> None:
        if processes is not None and processes < 1:
            raise ValueError(f"hydra.launcher.processes must be >= 1, not {processes!r}.")
        self.processes = processes or len(os.sched_getaffinity(0))

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """What Hydra hands over."""
        self.context, self.config = hydra_context, config
        self.task = task_function.__wrapped__  # type: ignore[attr-defined]  # ours, see hydra_main

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """All jobs, as many at once as there are processes."""
        from tqdm import tqdm

        spawn = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(self.processes, spawn, prepare)
        returns, futures, bad = list[JobReturn](), {}, 0
        try:
            with tqdm(total=len(job_overrides), unit="job", disable=None) as bar:
                for overrides in job_overrides:
                    futures[pool.submit(attempt, self.task, self.resolved(overrides))] = overrides
                for future in as_completed(futures):
                    failed, overrides = future.result(), list(futures[future])
                    if failed:
                        bad += 1
                        bar.write(f"{' '.join(overrides)}: {failed}", file=sys.stderr)
                    done = JobReturn(overrides=overrides, status=JobStatus.COMPLETED)
                    returns.append(done)
                    bar.update()
        except BaseException:
            for process in list(pool._processes.values()):
                process.terminate()
            raise
        finally:
            pool.shutdown(cancel_futures=True)
        if bad:
            raise ValueError(f"{bad} of {len(job_overrides)} jobs could not do all their points.")
        return returns

    def resolved(self, overrides: Sequence[str]) -> dict[str, Any]:
        """A job's configuration as plain values."""
        config = self.context.config_loader.load_sweep_config(self.config, list(overrides))
        choices = dict(config.hydra.runtime.choices)
        OmegaConf.set_struct(config, False)
        del config["hydra"]
        plain: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
        return {**plain, "choices": choices}
