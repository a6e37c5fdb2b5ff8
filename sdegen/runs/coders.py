"""Coders: runs of autoencoders, in whose latents other runs live, known by their content."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from inspect import isclass
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import torch
from torch import Tensor

from sdegen.checks import text
from sdegen.files import load_weights, read_header, read_tensors
from sdegen.latents import Encoded, Latent, encoded, fit_scale
from sdegen.networks import Autoencoder
from sdegen.runs.begun import as_recorded, begun
from sdegen.runs.build import build, refuse_strangers
from sdegen.runs.folder import WEIGHTS, Run, content_of, device_of
from sdegen.runs.network import facts, parameters

LATENTS = "latents.safetensors"
"""Means and standard deviations of a run's training data, in its folder."""
DECODED = 256
"""States decoded at once."""


def codes(config: Mapping[str, Any]) -> bool:
    """Whether a configuration's network is an autoencoder."""
    node, packages = config["net"], config["packages"]
    refuse_strangers(node, packages)
    try:
        found = resolve_name(str(node.get("_target_")))
    except Exception:  # whatever a module raises that is imported here; its building says it
        return False
    return isclass(found) and issubclass(found, Autoencoder)


def build_coder(config: Mapping[str, Any], shape: Sequence[int]) -> Autoencoder:
    """The autoencoder of a configuration, for data of a shape; ValueError for data that it cannot
    code."""
    node, packages = config["net"], config["packages"]
    known, asked = facts(shape, 0), parameters(node, packages)
    if "channels" not in known:
        raise ValueError(
            f"Samples of shape {tuple(shape)} are vectors, but an autoencoder is of series, "
            "images or volumes (channels, *space)."
        )
    given = {name: known[name] for name in known if name in asked and name not in node}
    coder: Autoencoder = build(node, packages, **given)
    coder.latent_shape(shape)
    return coder


def load_coder(folder: Path, packages: Sequence[str] = (), device: str = "cpu") -> Autoencoder:
    """The autoencoder of a finished run, at rest; ValueError where there is none."""
    tensors, header = read_tensors(folder / WEIGHTS)
    config = {**as_recorded(header["config"]), "packages": list(packages)}
    if not codes(config):
        raise ValueError(
            f"The run in {folder} is no autoencoder, but {config['net'].get('_target_')}: train "
            "one with sdegen-train experiment=latents/autoencoder."
        )
    coder = build_coder(config, header["shape"])
    load_weights(coder, tensors, folder / WEIGHTS)
    return coder.to(device_of(device)).eval().requires_grad_(False)


def as_latent(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration with the data of its coder's run, and with the content of its weights;
    itself where there is no coder.

    ValueError for a run that is no autoencoder, for other data than its, and for a task, which
    hides parts of images.
    """
    if not config.get("coder"):
        return {name: value for name, value in config.items() if name != "coder"}
    if config.get("task"):
        raise ValueError(
            "A task shows parts of images, which latents do not have: leave task or coder out."
        )
    folder = Path(text("coder.run", config["coder"].get("run")))
    if config.get("data"):
        raise ValueError(
            f"The latents are of the data that the autoencoder in {folder} was trained on: leave "
            "data out, or train an autoencoder of these with experiment=latents/autoencoder."
        )
    load_coder(folder, config["packages"])
    theirs = as_recorded(read_header(folder / WEIGHTS)["config"])
    coder = {"run": str(folder.resolve()), "content": content_of(folder)}
    return {**config, "data": theirs["data"], "coder": coder}


def with_latents(config: dict[str, Any], data: Any, folder: Path) -> tuple[dict[str, Any], Any]:
    """A configuration that says the scale of its coder's latents, and the latents of its training
    data; both as they are without a coder. Nothing is written.

    The scale is that of the whole of the data; in a folder with a checkpoint, and of a student,
    what it was begun with. ValueError where the coder is another one than the run was begun with.
    """
    coder = config.get("coder")
    if not coder:
        return config, data
    before = begun(folder).get("run", {}).get("config", {}).get("coder") or {}
    if before:
        if before["content"] != coder["content"]:
            raise ValueError(
                f"The run in {folder} was begun in the latents of {before['content']}, but the "
                f"autoencoder in {coder['run']} has other weights, {coder['content']}: bring "
                "those back, or begin anew (name=...)."
            )
        coder = {**before, "run": coder["run"]}
    config = {**config, "coder": coder}
    device = config["train"]["device"]
    if "scale" not in coder:
        autoencoder = load_coder(Path(coder["run"]), config["packages"], device)
        found = fit_scale(autoencoder, data)
        numbers = {"shift": found.shift.tolist(), "scale": found.scale.tolist()}
        config = {**config, "coder": {**coder, **numbers}}
    latent = latent_of(config, config["packages"], device, folder)
    path = folder / LATENTS
    return config, encoded(data, latent, path if path.is_file() else None)


def keep_latents(data: Any, images: Any, folder: Path) -> None:
    """Latents of a run's training data in its folder, where they are not there yet."""
    path = folder / LATENTS
    if isinstance(data, Encoded) and not path.is_file():
        data.write(path, images)


def latent_of(
    config: Mapping[str, Any],
    packages: Sequence[str] = (),
    device: str = "cpu",
    beside: Path | None = None,
) -> Latent:
    """The latents that a run lives in; ValueError where their coder is missing, or is another one
    than it was begun with. beside: the run's own folder, next to which it is looked for too."""
    coder = config["coder"]
    folder = found_again(coder, beside)
    if (found := content_of(folder)) != coder["content"]:
        raise ValueError(
            f"The autoencoder in {folder} has other weights ({found}) than the one in whose "
            f"latents this run was begun ({coder['content']}): bring those back, or begin anew "
            "(name=...)."
        )
    shift, scale = (torch.tensor(coder[k], dtype=torch.float64) for k in ("shift", "scale"))
    return Latent(load_coder(folder, packages, device), shift, scale)


def found_again(coder: Mapping[str, Any], beside: Path | None) -> Path:
    """The folder of a run's coder: where it was, or under its name next to the run, as where both
    were moved together; ValueError where it is at neither."""
    was = Path(coder["run"])
    places = [was] + ([] if beside is None else [beside.resolve().parent / was.name])
    for place in places:
        if (place / WEIGHTS).is_file():
            return place
    raise ValueError(
        "This run is a model of the latents of an autoencoder that is not at "
        f"{' nor at '.join(map(str, places))}: bring the one of content {coder['content']} back."
    )


@dataclass(frozen=True)
class Decoded:
    """States of a run as data: as they are, or decoded.

    shape: of the data.
    """

    shape: Sequence[int]
    latent: Latent | None = None

    @classmethod
    def of(cls, run: Run, packages: Sequence[str], device: str) -> Decoded:
        """Of a finished run; ValueError where its coder is missing or is another one."""
        if not run.config.get("coder"):
            return cls(run.shape)
        return cls.at(run.config, run.shape, packages, device, run.folder)

    @classmethod
    def at(
        cls,
        config: Mapping[str, Any],
        shape: Sequence[int],
        packages: Sequence[str],
        device: str,
        beside: Path | None = None,
    ) -> Decoded:
        """Of states of a shape, by a run's configuration; beside: the run's folder."""
        if not config.get("coder"):
            return cls(shape)
        latent = latent_of(config, packages, device, beside)
        found = cls((), latent)(torch.zeros(1, *shape))
        return cls(tuple(found.shape[1:]), latent)

    @torch.no_grad()
    def __call__(self, states: Tensor) -> Tensor:
        """Data (b, *) of states (b, *), a few at a time; NaN where a state is not finite."""
        if self.latent is None:
            return states
        weights = next(self.latent.coder.parameters())  # type: ignore[attr-defined]
        parts = []
        for some in states.split(DECODED):
            good = some.flatten(1).isfinite().all(1)
            x = self.latent.decode(some.to(weights).nan_to_num(0.0, 0.0, 0.0)).to(some)
            x[~good] = torch.nan
            parts.append(x)
        return torch.cat(parts)


def coder_by_content(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint keeps of a coder: not where it lies."""
    coder = config.get("coder")
    return {"coder": {k: v for k, v in coder.items() if k != "run"}} if coder else {}
