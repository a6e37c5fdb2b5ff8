"""Saved diffusers models as score models: the network, its SDE, its times, and its latents.

    found = load("stable-diffusion")              a folder that save_pretrained has written
    model = CFG(found.model.given(encoder_hidden_states=text), 7.5, without={...})
    z = sg.sample(found.thresholded(model), (4, *found.shape), **found.how(20), seed=0)
    x = found.decode(z)

Weights are read from safetensors alone, by diffusers' own classes, those that are named here, and
nothing of a folder is executed. The extra is sdegen[hf].
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sdegen.interop.schedules import Config, Said, library, read
from sdegen.model.score import ScoreModel

LABELLED = ("UNet2DModel", "DiTTransformer2DModel")
"""Networks whose class_labels are our y."""
NETWORKS = (*LABELLED, "UNet2DConditionModel")
CODECS = ("AutoencoderKL",)


class Network(nn.Module):
    """A diffusers network as ``net(x, t, **conditions)``: its own arguments by their names.

    y stands for class_labels where it has them. c (b, k, *) is put beside the state, for networks
    of more channels than a state has, as those of inpainting.
    """

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.labelled = type(inner).__name__ in LABELLED

    def forward(
        self, x: Tensor, t: Tensor, y: Tensor | None = None, c: Tensor | None = None, **more: Any
    ) -> Tensor:
        """The sample that the network returns."""
        if y is not None:
            if not self.labelled:
                raise ValueError(
                    f"{type(self.inner).__name__} takes no class: give its own arguments by name, "
                    "as encoder_hidden_states=..."
                )
            more["class_labels"] = y
        if c is not None:
            x = torch.cat([x, c], 1)
        out: Tensor = self.inner(x, t, return_dict=False, **more)[0]
        return out


class Codec(nn.Module):
    """A diffusers autoencoder as the coder of a ``sdegen.latents.Latent``.

    ``Latent(Codec(vae), ...)`` has the latents' scale beside it; ``fit_scale(Codec(vae), data)``
    measures another one.
    """

    def __init__(self, vae: nn.Module) -> None:
        super().__init__()
        self.vae: Any = vae

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of q(z | x), not scaled."""
        law = self.vae.encode(x.to(self.vae.dtype)).latent_dist
        return law.mean, law.std

    def decode(self, z: Tensor) -> Tensor:
        """Images of latents that are not scaled."""
        x: Tensor = self.vae.decode(z.to(self.vae.dtype), return_dict=False)[0]
        return x


@dataclass(frozen=True)
class Latents:
    """An autoencoder of images x (b, channels, H, W) in [-1, 1]: latents of about unit variance.

    z = (mean of q(z | x) - shift) scale; or, where the autoencoder has statistics of its channels,
    (mean - their mean) / their std scale.
    """

    vae: Any

    def scales(self, z: Tensor) -> tuple[Tensor | float, Tensor | float]:
        """What is taken from a mean, and what the rest is multiplied by."""
        c = self.vae.config
        factor = float(c.scaling_factor)
        mean, std = getattr(c, "latents_mean", None), getattr(c, "latents_std", None)
        if mean is not None and std is not None:
            m, s = (torch.tensor(v, device=z.device, dtype=z.dtype) for v in (mean, std))
            return m.view(1, -1, 1, 1), factor / s.view(1, -1, 1, 1)
        return float(getattr(c, "shift_factor", None) or 0.0), factor

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Latents of images."""
        mean: Tensor = self.vae.encode(x.to(self.vae.dtype)).latent_dist.mean
        shift, scale = self.scales(mean)
        return (mean - shift) * scale

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """Images of latents."""
        z = z.to(self.vae.dtype)
        shift, scale = self.scales(z)
        x: Tensor = self.vae.decode(z / scale + shift, return_dict=False)[0]
        return x


@dataclass(frozen=True)
class Loaded:
    """What a folder holds.

    model:  the score model, as it was trained: conditions are the caller's to give.
    shape:  of a state, (channels, height, width).
    said:   the scheduler's configuration in our words.
    latents: the autoencoder, None where states are images.
    null:   conditions that stand for none, ``without`` of CFG, where the folder says it.
    """

    model: ScoreModel
    shape: tuple[int, ...]
    said: Said
    latents: Latents | None = None
    null: dict[str, Any] | None = None

    def how(self, steps: int) -> dict[str, Any]:
        """The times of so many steps of their scheduler, and whether the last one denoises, for
        ``sg.sample``; the solver is yours, and may ask the network more than once a step.

        ValueError for a scheduler whose steps are no walk; and for one step that denoises, which
        needs no solver: it is ``model(x, found.said.sde(t)).x0`` at t = found.said.times(1).
        """
        times, denoise = self.said.times(steps), self.said.denoises
        if len(times) < 2:
            t = float(times[0])
            raise ValueError(
                f"One step of {self.said.name} that denoises is no walk: the sample is "
                f"model(x, found.said.sde({t:g})).x0, for noise x at t = {t:g}."
            )
        return {"walk": times, "denoise": denoise}

    def thresholded(self, model: Any) -> Any:
        """A model with the clip or threshold of the scheduler, which is outermost; itself where
        there is none. (DDIMScheduler keeps the eps of before the clip unless it is told
        use_clipped_model_output; here x0 and eps are one pair.)"""
        return self.said.thresholded(model)

    def decode(self, z: Tensor) -> Tensor:
        """Images of states, which may be these themselves."""
        return z if self.latents is None else self.latents.decode(z)

    def encode(self, x: Tensor) -> Tensor:
        """States of images in [-1, 1]."""
        return x if self.latents is None else self.latents.encode(x)


def load(folder: str | Path, *, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Loaded:
    """A pipeline that ``save_pretrained`` has written, or the folder of a network with a
    scheduler_config.json beside its own config.json.

    Text encoders and tokenizers are left to their library: what they make is given to the model.
    ValueError, in a sentence, for a folder or component that is not there, is not understood, or
    holds weights that are not all its own, before anything is sampled.
    """
    folder = Path(folder)
    index = folder / "model_index.json"
    if not index.is_file():
        config = said_in(folder / "config.json")
        net = network(folder, str(config.get("_class_name")), device, dtype)
        return loaded(net, read(said_in(folder / "scheduler_config.json")), None)
    parts = {k: v[1] for k, v in said_in(index).items() if isinstance(v, list) and v[1]}
    where = next((k for k in ("unet", "transformer", "prior") if k in parts), None)
    if where is None or "scheduler" not in parts:
        raise ValueError(
            f"{index} names {', '.join(parts) or 'nothing'}: a pipeline with a unet or a "
            "transformer and a scheduler is understood."
        )
    net = network(folder / where, parts[where], device, dtype)
    vae = None
    for name in ("vae", "vqvae", "movq"):
        if name in parts:
            vae = Latents(pretrained(folder / name, parts[name], CODECS, device, dtype))
    said = read(said_in(folder / "scheduler" / "scheduler_config.json"))
    return loaded(net, said, vae)


def loaded(net: nn.Module, said: Said, latents: Latents | None) -> Loaded:
    """A network and what a scheduler says of it."""
    c: Any = net.config
    channels, out = int(c.in_channels), int(c.out_channels or c.in_channels)
    learned = said.config.get("variance_type") in ("learned", "learned_range")
    heads = 2 if out == 2 * channels or (learned and out % 2 == 0) else 1
    kind, size = type(net).__name__, c.sample_size
    null = {"y": int(c.num_embeds_ada_norm)} if kind == "DiTTransformer2DModel" else None
    model = ScoreModel(
        Network(net),
        said.sde,
        said.predicts,
        time=said.label,
        sigma_data=said.sigma_data,
        heads=heads,
    )
    sides = (size, size) if isinstance(size, int) else tuple(size or ())
    return Loaded(model.eval(), (out // heads, *sides), said, latents, null)


def network(folder: Path, kind: str, device: str, dtype: torch.dtype) -> nn.Module:
    """A network of a folder, in eval mode."""
    return pretrained(folder, kind, NETWORKS, device, dtype)


def pretrained(
    folder: Path, kind: str, known: tuple[str, ...], device: str, dtype: torch.dtype
) -> nn.Module:
    """A component by diffusers' own class, from safetensors on this machine alone; ValueError for
    one that is not among those known, and for weights that are missing or left over."""
    diffusers = library()
    if kind not in known:
        raise ValueError(f"{folder} holds {kind}, but only {', '.join(known)} are understood.")
    try:
        found, about = getattr(diffusers, kind).from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            torch_dtype=dtype,
            low_cpu_mem_usage=False,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"{folder} cannot be loaded as {kind}: {reason}") from error
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if names := about.get(what):
            raise ValueError(
                f"The weights in {folder} are not those of its config.json: {what} are "
                f"{', '.join(map(str, names[:3]))}{'...' if len(names) > 3 else ''}."
            )
    module: nn.Module = found.eval().to(device)
    return module


def said_in(path: Path) -> Config:
    """A JSON file; ValueError where it is missing or damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"There is no {path}: give a folder of diffusers.") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} is no configuration: it holds {type(found).__name__}.")
    return found
