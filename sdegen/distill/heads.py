"""A second output for a model that is trained already: how far its mean is off."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from sdegen.checks import number, whole
from sdegen.losses.dsm import check_data
from sdegen.losses.hybrid import variance_loss
from sdegen.losses.times import low_discrepancy
from sdegen.model.score import ScoreModel
from sdegen.networks.joined import Joined
from sdegen.solvers.variances import Head, Range, check_head
from sdegen.walks.grids import Grid, log_snr


def with_head(model: ScoreModel, net: nn.Module) -> ScoreModel:
    """A model of two heads: the mean of ``model``, to the bit, beside exp of what ``net`` says.

    net: called as the model's own network, net(x, label, **conditions) -> (b, c, *), in its dtype
         and on its device.  The model's network is copied, and frozen (``Joined``), as is a
         schedule that was learned.

    ValueError for what is no ScoreModel, or has two heads already, or is of a flow alone.
    """
    if type(model) is not ScoreModel or model.heads != 1:
        raise ValueError(
            f"A second output is for a ScoreModel of one, but this is {model!r}"
            f"{' of two' if getattr(model, 'heads', 1) == 2 else ''}: give the model itself, and "
            "wrap, if at all, afterwards."
        )
    if model.flow_only:
        raise ValueError(
            "A model of a flow alone has no reverse kernel whose variance there is to learn: take "
            "one that is trained with independent noise."
        )
    own = model.net if isinstance(model.net, nn.Module) else None
    joined = Joined(copy.deepcopy(own) if own is not None else model.net, net)
    scaled, sde = model.preconditioner, model.sde
    if isinstance(sde, nn.Module):
        sde = copy.deepcopy(sde).requires_grad_(False)
    two = ScoreModel(
        joined,
        sde,
        model.predicts,
        time=model.time,
        sigma_data=0.5 if scaled is None else scaled.sigma_data,
        scale_input=scaled is not None,
        data_range=model.data_range,
        heads=2,
    )
    shared = {name: model.conditions[name] for name in model.shared}
    each = {name: value for name, value in model.conditions.items() if name not in shared}
    two = two.given(shared, **each)
    return two.to(model.device)


def fit_head(
    model: ScoreModel,
    head: Head,
    data: Tensor,
    steps: int,
    *,
    net: nn.Module,
    batch_size: int = 256,
    lr: float = 2e-3,
    of: int = 25,
    grid: Grid = log_snr,
    seed: int = 0,
) -> ScoreModel:
    """Train ``net`` to say what ``head`` wants of a frozen model, ``steps`` of Adam on data
    (n, *), and join the two.  Bao et al. (2022b), who train a last layer on frozen features.

    head: ``Residual()``, NPR-DPM's, which is trained on the bound, or ``Square()``, SN-DPM's, on
          its own squares (``variance_loss``); both are positive, and below 0 wherever the
          variance would be it is 0.
    of:   the steps of the walk in ``grid`` whose terms the bound is: what is best does not depend
          on it.
    seed: of all that is drawn, on the model's device.
    Conditions of the model, as labels, have a value for each of the data.

    The result samples with ``LearnedVariance(head)`` and is measured by
    ``discrete_elbo(variance=head)``. ValueError for ``Range``, which is no matter of its step
    alone, for data as ``dsm_loss`` has it, for a model as ``with_head`` has it, and where the loss
    is not finite, as by too large a ``lr``.
    """
    check_head(head, "fit_head")
    if isinstance(head, Range):
        raise ValueError(
            "Range lies between two variances of a step, so that what it says is of one number of "
            "steps: fit Residual(), or train Range with the mean, by hybrid_loss."
        )
    check_data(data)
    whole("steps", steps), whole("batch_size", batch_size), number("lr", lr, 0)
    two = with_head(model, net).train()
    two.check_conditions(len(data))
    # One stream for places in the data, times and noise: two of one seed would be the same.
    draws = torch.Generator(two.device).manual_seed(seed)
    adam = torch.optim.Adam(net.parameters(), lr)
    for step in range(steps + 1):
        for group in adam.param_groups:
            group["lr"] = lr * (1 - step / steps)
        some = torch.randint(len(data), (batch_size,), generator=draws, device=two.device)
        loss = variance_loss(
            two.take(some),
            data[some.to(data.device)].to(two.device),
            head=head,
            steps=of,
            grid=grid,
            draw=low_discrepancy,
            generator=draws,
        ).mean()
        if not bool(loss.isfinite()):
            raise ValueError(
                f"The head's loss is {float(loss.detach())} at step {step} of {steps}: lower the "
                f"learning rate, lr={lr:g}, or look at the data."
            )
        if step == steps:  # the last one's head is looked at too
            break
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step()
    return two.eval()
