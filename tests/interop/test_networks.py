"""Networks of diffusers as ours: the same numbers from the same weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sdegen.interop.networks import adm, dit, ours
from tests.cases import refused

diffusers: Any = pytest.importorskip("diffusers")

DIT = {
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "in_channels": 3,
    "out_channels": 6,
    "num_layers": 2,
    "sample_size": 8,
    "num_embeds_ada_norm": 5,
}
ADM = {
    "in_channels": 3,
    "out_channels": 3,
    "block_out_channels": (16, 32, 32),
    "layers_per_block": 2,
    "down_block_types": ("ResnetDownsampleBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D"),
    "downsample_type": "resnet",
    "upsample_type": "resnet",
    "resnet_time_scale_shift": "scale_shift",
    "attention_head_dim": 8,
    "norm_num_groups": 8,
    "num_class_embeds": 5,
}


def awake(net: nn.Module) -> nn.Module:
    """A network of theirs with random weights, none of which is 0, of one embedding."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator))
    for block in getattr(net, "transformer_blocks", ()):
        block.norm1.emb.load_state_dict(net.transformer_blocks[0].norm1.emb.state_dict())
    return net.eval()


def theirs(kind: str, **more: Any) -> Any:
    if kind == "dit":
        return awake(diffusers.DiTTransformer2DModel(**{**DIT, **more}))
    return awake(diffusers.UNet2DModel(**{**ADM, **more}))


def batch(size: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    x = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(1))
    return x, torch.tensor([0, 500, 999]), torch.tensor([4, 0, 2])


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("dit", {}),
        ("dit", {"patch_size": 4, "norm_eps": 0.1, "out_channels": None}),
        ("adm", {}),
        ("adm", {"flip_sin_to_cos": False, "freq_shift": 1, "norm_eps": 0.1}),
        ("adm", {"attn_norm_num_groups": 4, "layers_per_block": 1}),
        ("adm", {"attention_head_dim": None}),
    ],
)
def test_outputs_and_gradients_are_theirs(kind: str, more: dict[str, Any]) -> None:
    net, (x, t, y) = theirs(kind, **more), batch()
    mine = ours(net)
    one, two = x.clone().requires_grad_(), x.clone().requires_grad_()
    expected, found = net(one, t, y, return_dict=False)[0], mine(two, t, y)
    expected.square().sum().backward()
    found.square().sum().backward()
    assert one.grad is not None and two.grad is not None
    for theirs_is, ours_is in ((expected.detach(), found.detach()), (one.grad, two.grad)):
        most = float(theirs_is.abs().max())
        assert most > 0.5  # so that there is something to be equal
        torch.testing.assert_close(ours_is, theirs_is, rtol=0, atol=1e-5 * most)


def test_no_class() -> None:
    x, t, _ = batch()
    net = theirs("dit")
    expected = net(x, t, torch.full((3,), 5), return_dict=False)[0]
    torch.testing.assert_close(ours(net)(x, t), expected, rtol=0, atol=1e-4)
    plain = theirs("adm", num_class_embeds=None)
    torch.testing.assert_close(ours(plain)(x, t), plain(x, t).sample, rtol=0, atol=1e-4)


def test_a_cast_keeps_the_labels_apart() -> None:
    """999 and 1000 are one number in bfloat16, and frequencies rounded to it are others."""
    net, (x, t, y) = theirs("dit"), batch()
    exact = ours(net)(x, t, y)
    low = ours(net).to(torch.bfloat16)(x.bfloat16(), t, y)
    assert (low - exact).norm() < 0.05 * exact.norm()


def test_what_ours_are_not_is_refused() -> None:
    cases: list[tuple[str, dict[str, Any], str]] = [
        ("dit", {"activation_fn": "geglu"}, "DiT has activation_fn = 'gelu-approximate', but"),
        ("adm", {"downsample_type": "conv"}, "ADM has downsample_type = 'resnet', but"),
        (
            "adm",
            {"up_block_types": ("AttnUpBlock2D", "UpBlock2D", "AttnUpBlock2D")},
            "ADM's levels attend alike on both ways",
        ),
        ("adm", {"block_out_channels": (16, 24, 32)}, "levels are multiples of the first"),
        (
            "adm",
            {"attention_head_dim": None, "block_out_channels": (16, 32, 64)},
            "as wide as their levels, 32, 64",
        ),
        ("adm", {"attention_head_dim": 16, "num_class_embeds": 4}, "not those of the conf"),
    ]
    for kind, more, said in cases:
        made, config = {"dit": (dit, DIT), "adm": (adm, ADM)}[kind]
        net = theirs(kind)
        with refused(said):
            made({**net.config, **config, **more}, net.state_dict())
    with refused("The configuration of DiT lacks patch_size, num_attention_heads"):
        dit({}, {})
    with refused("The weights are not those of the configuration: .* and others differ"):
        dit(dict(theirs("dit", num_layers=3).config), theirs("dit").state_dict())
    strange = theirs("dit")
    with torch.no_grad():
        strange.transformer_blocks[1].norm1.emb.class_embedder.embedding_table.weight += 1
    with refused("block 1's embedding is not that of block 0"):
        ours(strange)
    with refused("Linear is none of ours"):
        ours(nn.Linear(2, 2))
