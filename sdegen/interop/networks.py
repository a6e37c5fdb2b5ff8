"""Networks of diffusers as ours, weights and all: DiTTransformer2DModel, and UNet2DModel as ADM.

    net = ours(DiTTransformer2DModel.from_pretrained(folder))
    model = ScoreModel(net, DiscreteVPSDE(), "eps", time="1000t-1", heads=2)

What comes out is called as all our networks are, with labels of the time as they were trained on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sdegen.networks import ADM, DiT, TimeEmbedding

Weights = dict[str, Tensor]


def ours(net: nn.Module) -> DiT | ADM:
    """A network of diffusers as ours of the same function, its weights copied, in its mode and
    type; ValueError, in a sentence, for one that ours are not."""
    made: dict[str, Callable[..., DiT | ADM]] = {"DiTTransformer2DModel": dit, "UNet2DModel": adm}
    kind = type(net).__name__
    if kind not in made:
        raise ValueError(f"{kind} is none of ours: {', '.join(made)} are.")
    inner: Any = net
    first = next(net.parameters())
    new = made[kind](dict(inner.config), net.state_dict())
    new.to(first.device, first.dtype).train(net.training)
    return new


def dit(config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> DiT:
    """DiT of a DiTTransformer2DModel's config and state, of other names and another order of
    patches' numbers. The last class is none. Its grid of places goes with the state's size."""
    wanted = {
        "activation_fn": "gelu-approximate",
        "attention_bias": True,
        "dropout": 0.0,
        "norm_elementwise_affine": False,
        "norm_type": "ada_norm_zero",
    }
    needed = ("patch_size", "num_attention_heads", "num_layers", "attention_head_dim", "norm_eps")
    refuse_others("DiT", config, wanted, (*needed, "in_channels", "num_embeds_ada_norm"))
    patch, heads, depth = (
        int(config[name]) for name in ("patch_size", "num_attention_heads", "num_layers")
    )
    width = heads * int(config["attention_head_dim"])
    channels = int(config["in_channels"])
    out = int(config.get("out_channels") or channels)
    classes = int(config["num_embeds_ada_norm"])
    net = DiT(channels, width, depth, heads, patch, classes, out=out)
    old, new = dict(weights), Weights()
    old.pop("pos_embed.pos_embed", None)  # sines and cosines of the grid, which are made at hand
    told = one_embedding(old, depth)
    time = "timestep_embedder.linear_"
    new |= time_weights({k.removeprefix(time): w for k, w in told.items() if time in k}, True)
    new["conditioning.label.weight"] = told["class_embedder.embedding_table.weight"]
    new["enter.weight"] = old.pop("pos_embed.proj.weight").flatten(1)
    new["enter.bias"] = old.pop("pos_embed.proj.bias")
    for i in range(depth):
        theirs, mine = f"transformer_blocks.{i}.", f"blocks.{i}."
        attention(old, new, f"{theirs}attn1.", f"{mine}attention.")
        move(old, new, f"{theirs}norm1.linear.", f"{mine}modulation.")
        move(old, new, f"{theirs}ff.net.0.proj.", f"{mine}enter.")
        move(old, new, f"{theirs}ff.net.2.", f"{mine}leave.")
        net.get_submodule(f"blocks.{i}.norm2").eps = float(config["norm_eps"])  # type: ignore[assignment]
    move(old, new, "proj_out_1.", "modulation.")
    for kind in ("weight", "bias"):  # a patch's numbers: (row, column, channel) there
        numbers = old.pop(f"proj_out_2.{kind}").unflatten(0, (patch, patch, out))
        new[f"leave.{kind}"] = numbers.movedim(2, 0).flatten(0, 2)
    net.conditioning.time = TimeEmbedding(width, frequencies(256, 1))
    return filled(net, new, old)


def adm(config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> ADM:
    """ADM of the config and state of a UNet2DModel whose blocks are scaled and shifted and
    resample; groups and eps of its norms are taken over. "No class" is a row of zeros."""
    wanted = {
        "act_fn": "silu",
        "add_attention": True,
        "center_input_sample": False,
        "class_embed_type": None,
        "downsample_type": "resnet",
        "mid_block_scale_factor": 1,
        "mid_block_type": "UNetMidBlock2D",
        "resnet_time_scale_shift": "scale_shift",
        "time_embedding_dim": None,
        "time_embedding_type": "positional",
        "upsample_type": "resnet",
    }
    needed = ("block_out_channels", "layers_per_block", "down_block_types", "up_block_types")
    norms = ("norm_num_groups", "norm_eps", "dropout", "attention_head_dim")
    time = ("flip_sin_to_cos", "freq_shift", "in_channels", "out_channels")
    refuse_others("ADM", config, wanted, (*needed, *norms, *time))
    levels = [int(c) for c in config["block_out_channels"]]
    width, blocks = levels[0], int(config["layers_per_block"])
    if any(c % width for c in levels):
        raise ValueError(f"ADM's levels are multiples of the first, but these have {levels}.")
    attends = [
        tuple(kind.startswith("Attn") for kind in config[f"{way}_block_types"])
        for way in ("down", "up")
    ]
    known = {"AttnDownBlock2D", "AttnUpBlock2D", "DownBlock2D", "UpBlock2D"}
    known |= {"ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D"}
    kinds = [*config["down_block_types"], *config["up_block_types"]]
    # The last level has nothing below it: there the blocks with and without resampling are one.
    inner = [*config["down_block_types"][:-1], *config["up_block_types"][:-1]]
    plain = [kind for kind in inner if kind in ("DownBlock2D", "UpBlock2D")]
    if not set(kinds) <= known or attends[0] != attends[1][::-1] or plain:
        raise ValueError(
            "ADM's levels attend alike on both ways, between ResnetDownsampleBlock2D or "
            f"AttnDownBlock2D and their likes, but this network has {', '.join(kinds)}."
        )
    classes = int(config.get("num_class_embeds") or 0)
    # None is one head a level, as wide as it is.
    wide = {c for c, attend in zip(levels, attends[0], strict=True) if attend} | {levels[-1]}
    head = config["attention_head_dim"] or (wide.pop() if len(wide) == 1 else None)
    if head is None:
        raise ValueError(
            "ADM's heads are of one width, but here (attention_head_dim = None) they are as wide "
            f"as their levels, {', '.join(map(str, sorted(wide)))}."
        )
    net = ADM(
        int(config["in_channels"]),
        width,
        [c // width for c in levels],
        blocks,
        [i for i, attend in enumerate(attends[0]) if attend],
        classes,
        float(config["dropout"]),
        int(head),
        out=int(config["out_channels"]),
    )
    for module in net.modules():
        if isinstance(module, nn.GroupNorm):
            module.num_groups, module.eps = int(config["norm_num_groups"]), config["norm_eps"]
    old, new = dict(weights), Weights()
    move(old, new, "conv_in.", "enter.")
    move(old, new, "conv_norm_out.", "norm.")
    move(old, new, "conv_out.", "leave.")
    told = split_off(old, "time_embedding.linear_")
    new |= time_weights(told, bool(config["flip_sin_to_cos"]))
    if classes:
        table = old.pop("class_embedding.weight")
        new["conditioning.label.weight"] = torch.cat([table, torch.zeros_like(table[:1])])
    places = {"mid_block.resnets.0.": "middle.0.", "mid_block.resnets.1.": "middle.1."}
    k = 0
    for i in range(len(levels)):
        for j in range(blocks):
            places[f"down_blocks.{i}.resnets.{j}."] = f"down.{k}."
            k += 1
        places[f"down_blocks.{i}.downsamplers.0."] = f"down.{k}."
        k += 1
        for j in range(blocks + 1):
            places[f"up_blocks.{i}.resnets.{j}."] = f"up.{i}.{j}."
        places[f"up_blocks.{i}.upsamplers.0."] = f"grow.{i}."
    for theirs, mine in places.items():
        residual(old, new, theirs, f"{mine}residual.")
        attention(old, new, theirs.replace("resnets", "attentions"), f"{mine}attention.")
    middle: Any = net.get_submodule("middle.0.attention")
    if "middle.0.attention.norm.weight" not in new:
        middle.norm = nn.Identity()  # as theirs, whose attention at the bottom may have none
    else:
        middle.norm.num_groups = int(config["attn_norm_num_groups"])  # of its own
    net.conditioning.time = TimeEmbedding(4 * width, frequencies(width, config["freq_shift"]))
    return filled(net, new, old)


def refuse_others(
    name: str, config: Mapping[str, Any], wanted: Mapping[str, Any], needed: Sequence[str]
) -> None:
    """ValueError for a configuration that says otherwise, or does not say what has to be known."""
    missing = [key for key in needed if key not in config]
    if missing:
        raise ValueError(f"The configuration of {name} lacks {', '.join(missing)}.")
    for key, value in wanted.items():
        if config.get(key, value) != value:
            raise ValueError(f"{name} has {key} = {value!r}, but this network {config[key]!r}.")


def frequencies(n: int, shift: float) -> Tensor:
    """Of their sines and cosines, n / 2 in all: 10,000**(-i / (n / 2 - shift)), in float32."""
    i = torch.arange(n // 2, dtype=torch.float32)
    return torch.exp(-math.log(10_000) * i / (n // 2 - shift))


def split_off(old: Weights, start: str) -> Weights:
    """The weights whose names begin so, taken out, by the rest of their names."""
    names = [name for name in old if name.startswith(start)]
    return {name.removeprefix(start): old.pop(name) for name in names}


def move(old: Weights, new: Weights, theirs: str, mine: str) -> None:
    """Weights under a name of theirs, to a name of ours."""
    new |= {mine + rest: weight for rest, weight in split_off(old, theirs).items()}


def time_weights(given: Weights, cosines_first: bool) -> Weights:
    """The MLP of the time's sines and cosines; ours has sines first."""
    n = given["1.weight"].shape[1] // 2
    first = given["1.weight"].roll(n, 1) if cosines_first else given["1.weight"]
    found = {"hidden.weight": first, "hidden.bias": given["1.bias"]}
    found |= {"out.weight": given["2.weight"], "out.bias": given["2.bias"]}
    return {f"conditioning.time.{name}": weight for name, weight in found.items()}


def one_embedding(old: Weights, depth: int) -> Weights:
    """The embedding of time and class, of which every block of theirs has a copy."""
    copies = [split_off(old, f"transformer_blocks.{i}.norm1.emb.") for i in range(depth)]
    for i, copy in enumerate(copies):
        if any(not torch.equal(weight, copies[0][name]) for name, weight in copy.items()):
            raise ValueError(
                "DiT tells all blocks the same of time and class, but here block "
                f"{i}'s embedding is not that of block 0."
            )
    return copies[0]


def attention(old: Weights, new: Weights, theirs: str, mine: str) -> None:
    """Queries, keys and values as one layer; nothing where there is no attention."""
    move(old, new, f"{theirs}group_norm.", f"{mine}norm.")
    move(old, new, f"{theirs}to_out.0.", f"{mine}leave.")
    for kind in ("weight", "bias"):
        parts = [old.pop(f"{theirs}to_{each}.{kind}", None) for each in "qkv"]
        if all(part is not None for part in parts):
            new[f"{mine}qkv.{kind}"] = torch.cat([part for part in parts if part is not None])


def residual(old: Weights, new: Weights, theirs: str, mine: str) -> None:
    """A residual block."""
    names = {name: name for name in ("norm1", "conv1", "norm2", "conv2")}
    for name, ours_is in {**names, "time_emb_proj": "condition", "conv_shortcut": "skip"}.items():
        move(old, new, f"{theirs}{name}.", f"{mine}{ours_is}.")


def filled(net: Any, new: Weights, left: Weights) -> Any:
    """The network with its weights; ValueError where some are left over, missing or of another
    shape."""
    known = net.state_dict()
    wrong = {*left} | ({*new} ^ {*known})
    wrong |= {name for name in {*new} & {*known} if new[name].shape != known[name].shape}
    if wrong:
        raise ValueError(
            f"The weights are not those of the configuration: {', '.join(sorted(wrong)[:3])} "
            f"{'and others ' if len(wrong) > 3 else ''}differ."
        )
    net.load_state_dict(new)
    return net
