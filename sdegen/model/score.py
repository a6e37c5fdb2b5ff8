"""Score models: a network, the SDE it lives in, and what its output means."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from sdegen.checks import one_of
from sdegen.model.labels import (
    TIME_LABELS,
    Label,
    Prepared,
    check_label,
    label_dtype,
    prepare,
)
from sdegen.model.network import (
    changed_values,
    lengths,
    looked_at,
    name_of,
    of_process,
    read_output,
    take_values,
    warn_of_hidden,
)
from sdegen.model.prediction import (
    PREDICTIONS,
    PredictEDM,
    Target,
    check_target,
    predicted,
)
from sdegen.sde.level import Instant, expand, with_marginals
from sdegen.sde.process import SDE, LinearSDE


class ScoreModel(nn.Module):
    """A network ``net(x, label, **conditions)`` read as a score model of an SDE: a ``Denoiser``.

    net:       any callable; gets x (b, *) and a time label (b,), returns x's shape, as a tensor,
               the first of a tuple, a dictionary's "sample" or only tensor, or ``.sample``.
    predicts:  what it returns: "eps", "x0", "score", "v", "velocity" (dx/dt of the probability
               flow), "edm" (EDM's F, which also fixes c_in and the label c_noise), or a function
               of the Level giving (a, b) with output = a x0 + b eps. An SDE that is not linear
               knows "score" alone.
    time:      the label: "t" (default), "999t", "1000t-1" (n steps where the SDE has n betas; both
               count to T where that is beyond 1), "sigma", "lam", "c_noise" (the default of
               "edm"), or a function of the Level, whose whole numbers (int64) stay whole.
    scale_input: divide x by its standard deviation for data of std ``sigma_data``
               (as EDM's c_in; always so for "edm", otherwise the network sees x itself).
    data_range: (low, high) of the data it was trained on: likelihoods, bounds and encodings then
               refuse data outside.
    heads:     2 for a network of twice as many channels (axis 1): the first half is the output,
               the second is handed on as the prediction's ``more``.
    flow_only: what it is trained on makes E[x0 | x_t] and the flow right, but no score: data
               coupled with their noise (reflow), or the steps of a teacher. Then eta > 0, climbs,
               Langevin, bounds and guidance by gradients are refused.
    module:    the network itself, where ``net`` is a function that calls it: what parameters,
               device and dtype are asked of.

    A subclass or a wrapper that changes what is predicted overrides ``output``, of which every
    view is made. ``nfe`` counts the calls of the network, here and nowhere else. The first call
    looks whether the network writes into its input: then it always gets copies, and states stay as
    they are. ValueError for one that does so only later, or into a condition, for an unknown
    prediction or label, for an SDE that cannot give what is asked, and for a network whose output
    does not have its input's shape; a warning for a function that hides its parameters.
    """

    def __init__(
        self,
        net: Callable[..., Any],
        sde: SDE,
        predicts: str | Target = "eps",
        *,
        time: str | Label | None = None,
        sigma_data: float = 0.5,
        scale_input: bool = False,
        data_range: tuple[float, float] | None = None,
        heads: int = 1,
        flow_only: bool = False,
        module: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(sde, SDE):
            raise ValueError(f"ScoreModel's second argument is an SDE, but it is {sde!r}.")
        if not callable(net) or isinstance(net, type):
            meant = f" (did you mean {net.__name__}()?)" if isinstance(net, type) else ""
            raise ValueError(f"A network is called as net(x, label), but this is {net!r}{meant}.")
        if module is not None and not isinstance(module, nn.Module):
            raise ValueError(
                f"module is the network itself, a torch.nn.Module, but it is {module!r:.60}: of "
                "several make one, as torch.nn.ModuleList does."
            )
        if not isinstance(sde, LinearSDE) and (predicts != "score" or scale_input):
            raise ValueError(
                f"{type(sde).__name__} has no marginals, so its model can only predict the score "
                f"of unscaled states: use predicts='score', not {predicts!r}."
            )
        if heads not in (1, 2):
            raise ValueError(f"heads is 1, or 2 for a second output, but it is {heads!r}.")
        edm = PredictEDM(sigma_data)
        time = ("c_noise" if predicts == "edm" else "t") if time is None else time
        if flow_only and not isinstance(sde, LinearSDE):
            raise ValueError(
                f"flow_only is of a LinearSDE's flow, and {type(sde).__name__} is known by its "
                "score alone."
            )
        self.net, self.module, self.sde, self.heads = net, module, sde, heads
        self.flow_only = flow_only
        self.predicts, self.time = predicts, time
        self.preconditioner = edm if scale_input or predicts == "edm" else None
        self.target: Target = (
            one_of(predicts, "prediction", {**PREDICTIONS, "edm": edm})
            if isinstance(predicts, str)
            else predicts
        )
        self.label: Label = (
            one_of(time, "time label", TIME_LABELS)(sde) if isinstance(time, str) else time
        )
        # A label of yours may have parameters, or look at what changes: it is made at each call.
        self._named = self.label if isinstance(time, str) else None
        if data_range is not None and not data_range[0] < data_range[1]:
            raise ValueError(f"data_range is (low, high), but it is {data_range!r}.")
        self.data_range = data_range
        self.conditions: dict[str, Any] = {}
        self.shared: frozenset[str] = frozenset()
        self._spent = [0, 0]
        # Whether the network writes into its state, in training and out of it, once it was looked
        # at; and so for every set of conditions, of all copies.
        self._writes = dict[bool, bool]()
        self._looked = {frozenset[str](): self._writes}
        self._prepared: Prepared | None = None
        at_top: Any = (sde.reference if isinstance(sde, LinearSDE) else sde)(sde.T)
        check_label(self.label, time, sde, at_top)
        check_target(self.target, predicts, at_top)
        if module is None:
            warn_of_hidden(net, sde)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for old, new in (("call", "output(x, level)"), ("rows", "take(index)")):
            if old in vars(cls):
                raise TypeError(f"{cls.__name__}.{old} is asked by nobody: override {new}.")

    def __repr__(self) -> str:
        net = self.net if self.module is None else self.module
        given = f", given {', '.join(self.conditions)}" if self.conditions else ""
        predicts, time = (
            each if isinstance(each, str) else getattr(each, "__qualname__", repr(each))
            for each in (self.predicts, self.time)
        )
        said = f"predicts={predicts!r}, time={time!r}{given}"
        return f"ScoreModel({name_of(net)}, {self.sde!r}, {said})"

    @property
    def nfe(self) -> int:
        """Calls of the network so far, through this model and every ``given`` copy of it."""
        return self._spent[0]

    @property
    def vjps(self) -> int:
        """Products with the network's transposed Jacobian so far, as divergences take them."""
        return self._spent[1]

    def count(self, calls: int = 0, vjps: int = 0) -> None:
        """Count what was spent without this object, as by a CUDA graph."""
        self._spent[0] += calls
        self._spent[1] += vjps

    @property
    def device(self) -> torch.device:
        """Where the network's parameters are (the CPU if it has none)."""
        return next((p.device for p in self.parameters()), torch.device("cpu"))

    @property
    def dtype(self) -> torch.dtype | None:
        """The network's own floating type, None if it has no parameters."""
        return next((p.dtype for p in self.parameters() if p.is_floating_point()), None)

    # ------------------------------------------------------------------------------ conditions

    def given(self, shared: Mapping[str, Any] | None = None, /, **conditions: Any) -> ScoreModel:
        """This model with keyword arguments for its network fixed.

        conditions: each has a value for each sample, as class labels y (b,), and is cut with the
                    batch; numbers and other things without an axis are for all samples alike.
                    One that is a field of the SDE's, as its ``conditions`` say, is set there too.
        shared:     those that have an axis, and yet are for all samples alike.
        """
        shared = dict(shared or {})
        model = copy.copy(self)
        known = {**conditions, **shared}.items()
        own = {name: of_process(value) for name, value in known if name in self.sde.conditions}
        if own:
            model.sde = self.sde.given(**own)
        model.conditions = {**self.conditions, **conditions, **shared, **own}
        model.shared = (self.shared - conditions.keys()) | shared.keys()
        model._writes = self._looked.setdefault(frozenset(model.conditions), {})
        return model

    def take(self, index: Tensor) -> ScoreModel:
        """This model for some samples of the batch, by their places (k,)."""
        model = copy.copy(self)
        whole = self.shared.intersection(self.sde.conditions)
        model.sde = self.sde.take(index, whole) if whole else self.sde.take(index)
        model.conditions = {
            name: value if name in self.shared else take_values(value, index)
            for name, value in self.conditions.items()
        }
        return model

    def with_values(self, change: Callable[[Tensor], Tensor]) -> ScoreModel:
        """This model with other tensors as its conditions: those that ``change`` makes of them."""
        model = copy.copy(self)
        model.conditions = {n: changed_values(c, change) for n, c in self.conditions.items()}
        return model

    def check_conditions(self, b: int) -> None:
        """Refuse conditions that are not of the batch's length."""
        for name, value in self.conditions.items():
            if name not in self.shared and (other := lengths(value) - {b}):
                raise ValueError(
                    f"The condition {name} has {min(other)} values, but the batch "
                    f"has {b} samples: give one for each, or, if it is for all samples alike, "
                    f"given(dict({name}=...))."
                )

    # ------------------------------------------------------------------------------ evaluation

    def forward(self, x: Tensor, t: Tensor | float | Instant) -> Any:
        """The prediction at state x (b, *) and time t, () or (b,), or a level already made."""
        level = t if isinstance(t, Instant) else self.sde(t)
        if self.heads == 1 or type(self).output is not ScoreModel.output:
            F, more = self.output(x, level), None
        else:
            F, more = self.evaluate(x, level).chunk(2, dim=1)
        return predicted(self.sde, self.target, x, F, level, more, self.flow_only)

    def output(self, x: Tensor, level: Instant) -> Tensor:
        """The network's output F (b, *) in x's dtype: one evaluation."""
        whole = self.evaluate(x, level)
        return whole if self.heads == 1 else whole.chunk(2, dim=1)[0]

    def evaluate(self, x: Tensor, level: Instant) -> Tensor:
        """All that the network returns at state x (b, *), in x's dtype: one call, counted."""
        place = level.place
        if place is not None and self.label is self._named and not torch.is_grad_enabled():
            ready, i = self._prepared, place[1]
            if ready is None or i in ready.ends or not ready.fits(place[0], x):
                ready = self.prepared(place[0], x)
            rows, dtype = ready.rows, ready.dtype
            label = ready.fresh(i, x) if rows is None else rows[i]
            inputs = x if ready.scales is None else x * ready.scales[i]
        else:
            self.check_state(x)
            ready, rows, dtype = None, None, self.dtype or x.dtype
            label, c_in = self.label_at(level, x, dtype), self.c_in(level)
            inputs = x if c_in is None else expand(c_in, x) * x
        if inputs.dtype is not dtype:
            inputs = inputs.to(dtype)
        self._spent[0] += 1
        if self.conditions:
            self.check_conditions(x.shape[0])
        writes = self._writes.get(self.training)
        if writes is None:
            F, writes = looked_at(self.net, inputs, label, self.conditions)
            self._writes[self.training] = writes
        else:
            counts = not x.is_inference()
            before = x._version if counts else 0
            own = x.clone() if writes and inputs is x else inputs
            F = self.net(own, label, **self.conditions)
            if counts and x._version != before:
                self.refuse_write()
        if rows is not None and ready is not None and label._version != ready.version:
            ready.renew()  # the network has written into its label
        return read_output(F, x, self.heads)

    def asked_along(self, levels: Instant, x: Tensor) -> Callable[[Tensor, int], Tensor] | None:
        """``output`` at states (b, *) in x's place and the i-th of levels (n,), for a walk that
        asks once at each, and on which nobody changes the model or the mode.

        What holds for all of it is looked at here. None where ``output`` has to be asked: it is
        overridden, or there is a second one; gradients or inference mode are on; the label is
        one's own or not kept; the network has another type, writes, or is not looked at yet.
        """
        mine = tuple(getattr(f, "__func__", None) for f in (self.output, self.evaluate))
        looked = self._writes.get(self.training) is False and self.label is self._named
        if mine != OWN or self.heads == 2 or not looked or torch.is_grad_enabled():
            return None
        if x.is_inference() or torch.is_inference_mode_enabled():
            return None
        ready = self.prepared(levels, x)
        if ready.rows is None or ready.dtype is not x.dtype:
            return None
        self.check_conditions(x.shape[0])
        net = partial(self.net, **self.conditions) if self.conditions else self.net
        rows, scales, spent = ready.rows, ready.scales, self._spent
        shape, dtype = x.shape, x.dtype

        def ask(x: Tensor, i: int) -> Tensor:
            spent[0] += 1
            before, label = x._version, rows[i]
            F = net(x if scales is None else x * scales[i], label)
            if x._version != before:
                self.refuse_write()
            if label._version != ready.version:
                ready.renew()
            if type(F) is Tensor and F.dtype is dtype and F.shape == shape:
                return F
            return read_output(F, x, self.heads)

        return ask

    def prepared(self, levels: Instant, x: Tensor) -> Prepared:
        """What is prepared for states x (b, *) at levels (n,), made once for all of them.

        It is looked at closely at a walk's ends: since the last walk the network may have another
        type, or may have written into a label.
        """
        ready, dtype = self._prepared, self.dtype or x.dtype
        if (
            ready is None
            or not ready.fits(levels, x)
            or ready.label is not self.label
            or ready.scale is not self.preconditioner
            or ready.dtype is not dtype
            or not ready.still(x)
        ):
            self.check_state(x)
            c_in = self.c_in(levels)
            ready = prepare(levels, self.label, self.preconditioner, c_in, x, dtype)
            self._prepared = ready
        return ready

    def refuse_write(self) -> NoReturn:
        """Whoever wrote into a state is handed copies from now on; this one is lost."""
        self._writes[self.training] = True
        raise ValueError(
            "The network has written into the states that it was handed, which it had not when "
            "it was first called: let it begin with x = x.clone(), or call again, with copies."
        )

    def check_state(self, x: Tensor) -> None:
        """Refuse what is no batch of states."""
        if not x.is_floating_point() or x.ndim < self.heads:
            raise ValueError(
                f"A state is a floating-point tensor (b, *), but this one is {x.dtype} of shape "
                f"{tuple(x.shape)}; scale integer images first, as sdegen.data.from_uint8 does."
            )

    def label_at(self, level: Instant, x: Tensor, dtype: torch.dtype) -> Tensor:
        """The label (b,) of states x (b, *) at a level of times () or (b,)."""
        if level.t.ndim and level.t.shape != x.shape[:1]:
            raise ValueError(
                f"Times are of shape () or ({len(x)},) for a batch of {len(x)}, "
                f"but they are {tuple(level.t.shape)}."
            )
        label = self.label(level)
        if label.ndim > 1:
            raise ValueError(
                f"A time label is of shape () or (b,), but this one is {tuple(label.shape)}, as "
                f"levels of {type(self.sde).__name__} differ between coordinates: use the labels "
                '"t", "lam", "sigma" or "c_noise", which are those of its reference.'
            )
        kind = label_dtype(label, dtype)
        if label.ndim:  # times of each sample's own, which a solver keeps on the host
            return label.to(x.device, kind).expand(len(x)).clone()
        # Adding a 0-d CPU tensor hands its value to the kernel: no copy, no synchronisation.
        return x.new_zeros(len(x), dtype=kind) + label.to(kind)

    def c_in(self, level: Instant) -> Tensor | None:
        """What a state is multiplied by before the network sees it; None: nothing."""
        if self.preconditioner is None:
            return None
        at = with_marginals(level)
        return ((at.alpha * self.preconditioner.sigma_data) ** 2 + at.sigma**2).rsqrt()


OWN = ScoreModel.output, ScoreModel.evaluate
"""As they stand here, whoever replaces them."""
