"""The training loop: a generator on Lightning Fabric, resumable bit for bit on the CPU.

Everything random in step k is a function of (seed, process, k): the data's order comes from a
stateless sampler, torch's generators are seeded anew at every step, and those that an item of the
data may draw from at every item. So a checkpoint needs no generator state, and a resumed run
repeats what an undisturbed one would have done.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from sdegen.checks import warn
from sdegen.data import InfiniteBatches, SeededItems
from sdegen.data.classes import drawn, plain
from sdegen.data.items import batched, split
from sdegen.files import clear_parts, locked, read_tensors, write_text
from sdegen.training.activations import checkpoint_blocks
from sdegen.training.averages import Averages
from sdegen.training.batches import cut, loaded, step_seed, streamed
from sdegen.training.checkpoint import (
    CHECKPOINT,
    KEPT,
    asked_of,
    restore,
    write_checkpoint,
    write_snapshot,
)
from sdegen.training.compiling import compile_network
from sdegen.training.engine import launch, lost, peak_memory, without_closure
from sdegen.training.frozen import FROZEN, content_of_frozen, refuse_other_base
from sdegen.training.identity import read_records, refuse_other
from sdegen.training.objective import Loss, Objective, network_of, refuse_shared_out
from sdegen.training.profiles import SNAPSHOTS, forget_snapshots
from sdegen.training.rates import rate
from sdegen.training.settings import TrainSettings
from sdegen.training.shards import all_finite, infinite_in, take_step, whole
from sdegen.training.signals import Wish
from sdegen.training.trackers import Tracker, Tracking

RECORDS = "metrics.jsonl"

HELD_OUT = 1024
"""Of held-out items the loss is taken of so many at most."""


@dataclass(frozen=True)
class Record:
    """What training says of itself every so often: means since the last record."""

    step: int
    loss: float
    grad_norm: float
    lr: float
    seconds: float
    held_out: float | None = None
    """The averaged model's loss on held-out data, where it was taken."""
    samples_per_second: float | None = None
    """Of training, by all processes together."""
    memory: float | None = None
    """The most that this process has had, in MiB: on a GPU there, else in the host."""


class Trainer:
    """A model in training, in a folder that holds its checkpoint, those to keep, and its records.

    model:     the score model, or another module, as an autoencoder; ``averaged`` is the copy to
               use, ``averages`` has those of every decay.
    data:      a data set, map-style or a stream (``IterableDataset``), of x, (x, y), (x, {name:
               condition}) or dictionaries: see ``split``. A stream's items are read again up to
               where a run goes on.
    loss:      (model, x0) -> per-sample losses; one that follows the training has ``at(step)``,
               which returns that of a step, counted from 0. Parameters of one that is a module
               are trained with the model's, and saved, as its buffers are; so are those of a
               module that a partial or dataclass has as its ``loss``.
    optimizer: parameters -> torch optimizer. ValueError for one whose step needs a closure.
    conditional: the network is given the items' conditions.
    held_out:  a data set of the same kind that tells how it goes: ``HELD_OUT`` items of it at
               most, with the classes in their shares, and nothing random in them (``plain``).
    identity:  JSON that says what is trained; a checkpoint of another identity is refused.
    about:     JSON that a checkpoint says of itself besides.
    trackers:  who is told the records, beside metrics.jsonl: ``CSV()``, ``TensorBoard()``, ...
    """

    def __init__(
        self,
        model: Any,
        data: Any,
        loss: Loss,
        optimizer: Callable[[Any], torch.optim.Optimizer],
        settings: TrainSettings,
        folder: Path,
        *,
        conditional: bool = False,
        held_out: Any = None,
        identity: dict[str, Any] | None = None,
        about: dict[str, Any] | None = None,
        trackers: Sequence[Tracker] = (),
    ) -> None:
        if held_out is not None and not hasattr(held_out, "__len__"):
            raise ValueError("Held-out data are a data set with a length, not a stream.")
        self.settings, self.folder, self.data = settings, folder, data
        self.held_out = None if held_out is None else plain(held_out)
        self.identity, self.about = identity or {}, about or {}
        self.trackers, self.tracking = trackers, Tracking((), folder, 0, (), {})
        self.fabric = launch(settings)
        # Copied before the network is changed: the averaged ones stay as they are.
        decays, device, apart = settings.decays, self.fabric.device, settings.strategy == "fsdp"
        self.averages = Averages(model, decays, device, settings.profiles, share=not apart)
        self.frozen = content_of_frozen(model)
        if settings.checkpointing:
            checkpoint_blocks(getattr(model, "module", None) or network_of(model))
        if settings.compile:
            compile_network(network_of(model), self.fabric.device)
        self.trained = Objective(model, loss, conditional)
        self.infinite = infinite_in(model.state_dict(), self.trained.loss_state())
        refuse_shared_out(self.trained, settings)
        # In two steps: of weights that are shared out the optimiser has to have the parts.
        self.objective = self.fabric.setup(self.trained)
        if settings.strategy == "fsdp":
            self.averages.share_out(self.fabric.strategy.device_mesh)
        self.optimizer = self.fabric.setup_optimizers(
            without_closure(optimizer(self.trained.weights()))
        )
        self.loss, self.conditional, self.asked = loss, conditional, asked_of(self.optimizer)
        self.base_lr = [group["lr"] for group in self.optimizer.param_groups]
        self.model, self.step = model, 0
        self.seen = 0  # data, by all processes together
        self.saved: int | None = None
        if (folder / CHECKPOINT).exists():
            self.load()

    def close(self) -> None:
        """Let go of the wrapped model and then of the other processes; in this order, or the
        exit of a distributed run can hang."""
        del self.objective
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            self.fabric.barrier()
            torch.distributed.destroy_process_group()

    @property
    def averaged(self) -> Any:
        """The model with averaged weights, of the first decay, ready to sample from."""
        return self.averages.model()

    def steps(self, wish: Wish | None = None) -> Iterator[Record]:
        """Train until ``settings.steps``, yielding a record every so often and saving on the way.

        A wish to stop is granted after the step under way, with a checkpoint: at once in a single
        process, at the next record where several must agree. While it trains no other process can
        in this folder.

        Raises ValueError if loss or weights are not finite, which are never saved, and where
        another process trains in the folder.
        """
        with locked(self.folder) if self.fabric.is_global_zero else nullcontext():
            if self.fabric.is_global_zero:
                clear_parts(self.folder / KEPT)  # what a killed process was writing there
                records = self.forget_later()
                forget_snapshots(self.folder, self.step)
                clear_parts(self.folder / SNAPSHOTS)
                place = self.folder, self.step, records
                self.tracking = Tracking(self.trackers, *place, self.config())
            status = "aborted"
            try:
                yield from self.go(wish)
                status = "success" if self.step == self.settings.steps else status
            except Exception as error:
                status, world = "failed", self.fabric.world_size
                if world > 1 and lost(error):
                    raise ValueError(
                        f"Another of the {world} processes has ended. {self.last_good()}"
                    ) from error
                raise
            finally:
                self.tracking.close(status)

    def go(self, wish: Wish | None) -> Iterator[Record]:
        """``steps`` in a folder that is ours."""
        settings, count = self.settings, 0
        total = torch.zeros(2, device=self.fabric.device)
        start = time.perf_counter()
        for x0, given in self.batches():
            total += self.update(x0, given)
            count += 1
            if self.step % settings.log_every == 0 or self.step == settings.steps:
                loss, norm = (self.fabric.all_reduce(total, reduce_op="mean") / count).tolist()
                self.refuse_broken(loss)
                now = time.perf_counter()
                lr = self.optimizer.param_groups[0]["lr"]
                seconds, memory = now - start, peak_memory(self.fabric.device)
                done = count * settings.batch_size * self.fabric.world_size
                held_out, rate_of = self.validated(), done / max(seconds, 1e-9)
                record = Record(self.step, loss, norm, lr, seconds, held_out, rate_of, memory)
                total.zero_()
                count = 0
                self.record(record)
                yield record
                start = time.perf_counter()  # what the caller did is not the training's time
            stop = self.agreed(wish)
            keep = settings.keep_every > 0 and self.step % settings.keep_every == 0
            last, often = self.step == settings.steps, settings.snapshot_every
            snapshot = often > 0 and self.step % often == 0
            due = snapshot or self.step % settings.save_every == 0
            if stop or keep or last or due:
                sums = self.fabric.all_reduce(total.clone(), reduce_op="sum")  # in place, it may
                self.refuse_broken(float(sums[0]))
                if snapshot:
                    self.snapshot()
                self.save(keep)
            if stop:
                return

    def refuse_broken(self, loss: float) -> None:
        """ValueError where the loss since the last record or the weights are not finite.

        (A gradient is not asked: where it is scaled to fit float16, it may overflow now and then,
        and the step is not taken. Where the step was taken, the weights tell.)
        """
        broken = f"loss is {loss}"
        if math.isfinite(loss):
            own = self.model.state_dict(), self.trained.loss_state()
            good = all_finite([*own, *self.averages.states().values()], self.infinite)
            if self.fabric.world_size > 1:  # where each may have its own part
                good = self.fabric.all_reduce(good, reduce_op="mean")
            if float(good) == 1:
                return
            broken = "weights are not finite"
        raise ValueError(
            f"The {broken} at step {self.step}: lower the learning rate or look at the data. "
            + self.last_good()
        )

    def last_good(self) -> str:
        """What there is to go on from."""
        if self.saved is None:
            return "There is no checkpoint yet."
        return f"The checkpoint of step {self.saved} is the last good one, and untouched."

    def agreed(self, wish: Wish | None) -> bool:
        """Does any process wish to stop?"""
        if self.fabric.world_size == 1:
            return bool(wish)
        if self.step % self.settings.log_every:
            return False
        mine = torch.tensor(float(bool(wish)), device=self.fabric.device)
        return bool(self.fabric.all_reduce(mine, reduce_op="sum"))

    def validated(self) -> float | None:
        """The averaged model's mean loss on held-out data, with the same noise every time; None
        where it is not wanted at this step."""
        every = self.settings.validate_every
        if self.held_out is None or not every or self.step % every:
            return None
        # Drawn: a file may be sorted by class.
        picks, total = drawn(self.held_out, HELD_OUT).tolist(), 0.0
        objective = Objective(self.averaged, self.loss, self.conditional).eval()
        torch.manual_seed(step_seed(self.settings.seed, 0, -1))
        for first in range(0, len(picks), self.settings.batch_size):
            some = picks[first : first + self.settings.batch_size]
            items = batched([self.held_out[i] for i in some])
            with torch.no_grad():
                loss = objective(*self.fabric.to_device(split(items)), self.step)
            total += float(loss) * len(some) / len(picks)
        return total

    def batches(self) -> Iterator[tuple[Tensor, dict[str, Any]]]:
        """The batches from this step on, of this process, on its device."""
        settings, left = self.settings, self.settings.steps - self.step
        if left <= 0:
            return
        place = self.fabric.global_rank, self.fabric.world_size
        loader: Any
        if isinstance(self.data, IterableDataset):
            loader = streamed(self.data, settings.batch_size, *place, self.seen)
        else:
            n, size, seed = len(self.data), settings.batch_size, settings.seed
            loader = torch.utils.data.DataLoader(
                SeededItems(self.data, seed),
                batch_sampler=InfiniteBatches(n, size, seed, *place, seen=self.seen).visits(),  # type: ignore[arg-type]
                num_workers=settings.workers,
                collate_fn=batched,
                generator=torch.Generator().manual_seed(seed),  # of the workers' seeds
            )
        for _, batch in zip(range(left), loaded(loader), strict=False):
            yield self.fabric.to_device(split(batch))

    def update(self, x0: Tensor, given: dict[str, Any]) -> Tensor:
        """One optimiser step on a batch: its loss and gradient norm, (2,), still on the device."""
        settings = self.settings
        torch.manual_seed(step_seed(settings.seed, self.fabric.global_rank, self.step))
        factor = rate(
            settings.schedule, self.step, settings.warmup, settings.steps, settings.after
        )
        for group, lr in zip(self.optimizer.param_groups, self.base_lr, strict=True):
            group["lr"] = lr * factor
        self.objective.train()
        loss = x0.new_zeros(())
        parts = cut(x0, given, settings.accumulate)
        for i, (x, conditions) in enumerate(parts, 1):
            # Gradients are summed between processes with the last part alone.
            waits = self.fabric.world_size > 1 and i < len(parts)
            with self.fabric.no_backward_sync(self.objective) if waits else nullcontext():
                part = self.objective(x, conditions, self.step) * (len(x) / len(x0))
                self.fabric.backward(part)
            loss = loss + part.detach()
        norm = self.fabric.clip_gradients(
            self.objective, self.optimizer, max_norm=settings.clip, error_if_nonfinite=False
        )
        take_step(self.optimizer)
        self.optimizer.zero_grad(set_to_none=True)
        self.averages.update(self.model)
        self.step += 1
        self.seen += settings.batch_size * self.fabric.world_size
        return torch.stack([loss.float(), torch.as_tensor(whole(norm)).to(loss).float()])

    def record(self, record: Record) -> None:
        """Append a record to the run's metrics, on the first process."""
        if self.fabric.is_global_zero:
            with (self.folder / RECORDS).open("a", encoding="utf-8") as file:
                file.write(json.dumps(vars(record)) + "\n")
            self.tracking.tell(vars(record))

    def save(self, keep: bool = False) -> None:
        """The whole state of training in one file, by the first process; ``keep``: in one that
        stays, too."""
        about = {
            **self.about,
            "step": self.step,
            "seen": self.seen,
            "devices": self.fabric.world_size,
            "identity": self.identity,
            "asked": self.asked,
            **({FROZEN: self.frozen} if self.frozen else {}),
        }
        first = self.fabric.is_global_zero
        if first or self.averages.plain is not None:
            parts = self.trained, self.averages, self.optimizer
            write_checkpoint(self.folder, *parts, about, keep, first)
        self.saved = self.step

    def snapshot(self) -> None:
        """The averages with a profile, in a file that stays, by the first process."""
        first = self.fabric.is_global_zero
        if first or self.averages.plain is not None:
            write_snapshot(self.folder, self.averages, self.step, first)

    def load(self) -> None:
        """Continue from the folder's checkpoint; ValueError if it is damaged, another run's, or
        beyond the steps that are wanted."""
        path, world = self.folder / CHECKPOINT, self.fabric.world_size
        tensors, about = read_tensors(path)
        refuse_other(path, about.get("identity", {}), self.identity)
        refuse_other_base(path, about.get(FROZEN, self.frozen), self.frozen)
        step, wanted = about["step"], self.settings.steps
        if step > wanted:
            raise ValueError(
                f"The checkpoint {path} is of step {step}, beyond train.steps = {wanted}: give "
                f"train.steps={step} or more, or choose another run folder (name=...)."
            )
        restore(path, tensors, about, self.trained, self.averages, self.optimizer, self.asked)
        self.step = self.saved = step
        self.seen = about.get("seen", step * self.settings.batch_size * world)
        before = about.get("devices", world)
        if before != world:
            size = self.settings.batch_size
            warn(
                f"The checkpoint {path} was made with train.devices = {before}, and this run has "
                f"{world}: the data go on where they were, a step takes {size * world} of them "
                f"where it took {size * before}."
            )

    def config(self) -> dict[str, Any]:
        """What is trained, and how."""
        how = {**vars(self.settings), **self.identity.get("train", {})}
        return {**self.identity, "train": how}

    def forget_later(self) -> list[dict[str, Any]]:
        """Drop the records of steps after the checkpoint, which will be made again; all that there
        were."""
        path = self.folder / RECORDS
        records = read_records(path)
        if path.exists():
            kept = [json.dumps(each) for each in records if each["step"] <= self.step]
            write_text(path, "".join(f"{line}\n" for line in kept))
        return records
