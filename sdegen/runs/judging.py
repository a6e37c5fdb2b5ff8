"""A run's own judges, fitted once and kept in its folder: of classes, and of captions."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from sdegen.checks import flag, number, whole
from sdegen.data import ArrayData
from sdegen.files import load_weights, read_tensors, write_tensors
from sdegen.guidance import CLIP, Encoder, Guided, Judge, Similarity, TextTower
from sdegen.losses import contrastive, low_discrepancy, noisy_ce, uniform_time
from sdegen.networks import MLP, Flattened
from sdegen.runs import bars
from sdegen.runs.build import build, build_data
from sdegen.runs.folder import Run, in_memory, of_data
from sdegen.runs.network import build_network
from sdegen.text import encoded

JUDGE = "judge.safetensors"
PAIR = "clip.safetensors"

DEEP = {"_target_": "sdegen.networks.Trunk", "width": 24, "mults": [1, 2, 2, 3], "attention": []}
"""A trunk whose lowest pixels see the whole of small images, edges and all: captions say where
something is, and what a digit is depends on it, which a mean over places knows by these alone."""

FLAT = {"_target_": "sdegen.networks.MLP", "width": 256, "depth": 3}
SMALL = 1024
"""Values of an image that an MLP, which knows each by its place, is still a judge of."""


def classified(
    run: Run,
    packages: Sequence[str] = (),
    *,
    scale: float = 1.0,
    net: Mapping[str, Any] | None = None,
    steps: int = 1000,
    batch_size: int = 128,
    lr: float = 1e-3,
    seed: int = 0,
    conditional: bool = False,
) -> Callable[[Any], Guided]:
    """What guides a run's model with labels towards these, by the run's judge.  Dhariwal & Nichol
    (2021), alg. 2.

    The judge is fitted to the training data at first, and kept in the run's folder; other
    settings fit another one.

    scale:       of grad log p(y | x_t).
    net:         a node of a network (x, t) -> logits that takes ``out``; by default an ``MLP``
                 for vectors and images of 1,024 values at most, and a ``Trunk`` of four levels
                 for larger ones.
    conditional: guide the model of the class, not the one without: the authors' own setting, in
                 which scale 0 is the conditional model.

    ValueError for a run without classes, and settings that are none.
    """
    flag("guidance.conditional", conditional)
    if not run.counts:
        raise ValueError(
            "This guidance needs a model that takes a class, but the run's takes none: train one "
            "with conditional=true and loss=dropped."
        )
    of_data(run, "guidance=classifier")
    asked = fit_settings(net, steps, batch_size, lr, seed)
    judge = judge_of(run, asked, packages)

    def guide(model: Any) -> Guided:
        y = model.conditions["y"]
        free = model if conditional else model.given(y=torch.full_like(y, len(run.counts)))
        return Guided(free, judge, scale, given={"y": y})

    return guide


def judge_of(run: Run, asked: Mapping[str, Any], packages: Sequence[str]) -> Judge:
    """The judge that a run's folder has, or one that is fitted now and put there, frozen."""

    def train(judge: Judge) -> None:
        data = training_data(run, packages)
        device = next(judge.parameters()).device
        x, y = data.x.to(device), data.y.to(device)

        def loss(chosen: Tensor, times: Any) -> Tensor:
            return noisy_ce(judge, x[chosen], y[chosen], times=times, draw=low_discrepancy)

        fit(judge, len(x), loss, run, asked, packages)

    return kept(run, JUDGE, asked, lambda: built(run, asked["net"], packages), train)


def described(
    run: Run,
    packages: Sequence[str] = (),
    *,
    scale: float = 1.0,
    conditional: bool = False,
    **how: Any,
) -> Callable[[Any], Guided]:
    """What guides a run's model with texts towards these, by the run's contrastive pair.  Nichol
    et al. (2022), GLIDE.

    The pair is fitted to the training data and their captions at first, and kept in the run's
    folder; other settings fit another one.

    scale:       s of s grad exp(logit_scale) <f(x_t, t), g(text)>.
    conditional: guide the model of the text, not the one without.
    how:         the settings of ``clip_of``.

    ValueError for a run without texts.
    """
    clip = clip_of(run, packages, **how)

    def guide(model: Any) -> Guided:
        told = {name: model.conditions[name] for name in ("tokens", "mask")}
        free = model if conditional else model.given(mask=torch.zeros_like(told["mask"]))
        with torch.no_grad():
            target = clip.embed_text(**told)
        strength = scale * clip.scale.item()
        return Guided(free, Similarity(clip.image), strength, given={"target": target})

    return guide


def clip_of(
    run: Run,
    packages: Sequence[str] = (),
    *,
    net: Mapping[str, Any] | None = None,
    width: int = 32,
    steps: int = 3000,
    batch_size: int = 64,
    lr: float = 1e-3,
    seed: int = 0,
) -> CLIP:
    """The contrastive pair that a run's folder has, or one that is fitted now and put there,
    frozen. It reads captions as the run's text encoder tells them.

    net:   a node of a network (x, t) -> features that takes ``out``; by default a ``Trunk`` of
           four levels for images, and an ``MLP`` for vectors.
    width: d, of an embedding.

    ValueError for a run without texts or in latents, and for data of one caption alone.
    """
    of_data(run, "A contrastive pair")
    if run.text is None:
        raise ValueError(
            "A contrastive pair needs a run that takes texts, but this one takes none: train one "
            "with text=words and data that have captions."
        )
    asked = {**fit_settings(net, steps, batch_size, lr, seed, 2), "width": whole("width", width)}
    encoder, scaled = run.text, sigma_data_of(run)

    def make() -> CLIP:
        image = judging_network(run, net, width, packages, DEEP)
        if isinstance(image, MLP):  # whose output starts at zero, which has no direction
            image.leave.reset_parameters()
        return CLIP(Encoder(image, run.model.sde, sigma_data=scaled), TextTower(encoder, width))

    def train(clip: CLIP) -> None:
        data = training_data(run, packages)
        if len(set(data.captions)) < 2:
            raise ValueError(
                "A contrastive pair tells captions apart, but the run's training data have "
                f"{len(set(data.captions))}."
            )
        device = next(clip.parameters()).device
        told, which = encoded(encoder, data.captions)
        tokens, mask = (told[name].to(device) for name in ("tokens", "mask"))
        x, which = data.x.to(device), which.to(device)
        clip.text.fit(tokens, mask)  # type: ignore[operator]

        def loss(chosen: Tensor, times: Any) -> Tensor:
            at, how = which[chosen], {"times": times, "draw": low_discrepancy}
            return contrastive(clip, x[chosen], tokens[at], mask[at], **how)

        fit(clip, len(x), loss, run, asked, packages)

    return kept(run, PAIR, asked, make, train)


def fit_settings(
    net: Any, steps: int, batch_size: int, lr: float, seed: int, least: int = 1
) -> dict[str, Any]:
    """The settings of a fit, checked: ValueError for what is none."""
    if net is not None and not (isinstance(net, Mapping) and "_target_" in net):
        raise ValueError(
            "guidance.net is a node, as '{_target_: sdegen.networks.Trunk, width: 24}', but it is "
            f"{net!r}."
        )
    if not number("guidance.lr", lr) > 0:
        raise ValueError(f"guidance.lr is above 0, but it is {lr!r}.")
    whole("guidance.steps", steps), whole("guidance.batch_size", batch_size, least)
    whole("guidance.seed", seed, None)
    return {"net": net, "steps": steps, "batch_size": batch_size, "lr": lr, "seed": seed}


def kept(
    run: Run,
    name: str,
    asked: Mapping[str, Any],
    make: Callable[[], Any],
    train: Callable[[Any], None],
) -> Any:
    """A network of a run, frozen: that of the file ``name`` in its folder, where it was made as
    it is asked for; or a new one that is trained, and written there. Torch's own generator is left
    as it was."""
    path, device = run.folder / name, run.model.device
    about = json.loads(json.dumps({**asked, "run": of_run(run)}))
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(asked["seed"])
        network = make().to(device)
        about["network"] = {k: list(v.shape) for k, v in network.state_dict().items()}
        tensors, header = read_tensors(path) if path.is_file() else ({}, None)
        if header == about:
            load_weights(network, tensors, path)
        else:
            train(network.train())
    network = network.eval().requires_grad_(False)
    if header != about:
        write_tensors(path, network.state_dict(), about)
    return network


def of_run(run: Run) -> dict[str, Any]:
    """What of a run decides its judges: other states, data, times or captions have others."""
    names = ("sde", "data", "sigma_data", "loss", *(["text"] if run.text else []))
    found = {name: run.config.get(name) for name in names}
    return {**found, "shape": list(run.shape), "classes": len(run.counts)}


def sigma_data_of(run: Run) -> float:
    """The scale of a run's data."""
    return float(run.config.get("sigma_data", 0.5))


def judging_network(
    run: Run,
    net: Mapping[str, Any] | None,
    out: int,
    packages: Sequence[str],
    usual: Mapping[str, Any],
) -> Any:
    """A network of a run's states that makes ``out`` numbers of each: the node's, or an ``MLP``
    for vectors and the ``usual`` one for others, an MLP of which sees them as vectors."""
    if net is None:
        net = {"_target_": "sdegen.networks.MLP"} if len(run.shape) == 1 else usual
    names = (FLAT["_target_"], f"{MLP.__module__}.{MLP.__name__}")
    flat = len(run.shape) > 1 and net["_target_"] in names
    shape = [prod(run.shape)] if flat else run.shape
    made = build_network({**net, "out": out}, packages, shape, 0)
    return Flattened(made) if flat else made


def built(run: Run, net: Mapping[str, Any] | None, packages: Sequence[str]) -> Judge:
    """A judge that knows nothing yet, told what the run's network is."""
    usual = FLAT if prod(run.shape) <= SMALL else DEEP
    network = judging_network(run, net, len(run.counts), packages, usual)
    return Judge(network, run.model.sde, sigma_data=sigma_data_of(run))


def training_data(run: Run, packages: Sequence[str]) -> ArrayData:
    """A run's training data, or a fair part of them."""
    return in_memory(build_data({**run.config, "packages": list(packages)})[0])


def fit(
    network: nn.Module,
    n: int,
    loss: Callable[[Tensor, Any], Tensor],
    run: Run,
    asked: Mapping[str, Any],
    packages: Sequence[str],
) -> None:
    """Fit a judge by a loss of some of n data, by their places, at the times that the run's model
    was trained at."""
    node, device = times_in(run.config["loss"]), next(network.parameters()).device
    times = build(node, packages) if node else uniform_time
    optimizer = torch.optim.AdamW(network.parameters(), lr=asked["lr"])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, asked["steps"])
    with bars.bar(range(asked["steps"]), desc="judge", leave=False) as bar:
        for k in bar:
            value = loss(torch.randint(n, (asked["batch_size"],)).to(device), times).mean()
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            schedule.step()
            if not k % 50:
                bar.set_postfix(loss=f"{value.item():.3f}")


def times_in(loss: Any) -> Any:
    """The node of the times of a loss, which may be inside another one; None where there is
    none."""
    if not isinstance(loss, Mapping):
        return None
    return loss.get("times") or next(filter(None, map(times_in, loss.values())), None)
