"""Attaching to a model: every call of PyTorch's fused attention is shown, captured, perhaps gated.

The model is not changed. Hooks tell which module a call is made in; a function mode sees the call
itself. Attention that a model computes by hand (a softmax of its own) makes no such call: where one
is noticed it is named.
"""

import math
import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple, Self

import torch
import xarray as xr
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from mut3r_analysis.attention.capture import Capture
from mut3r_analysis.attention.seam import logits
from mut3r_analysis.attention.sites import SITE_KINDS, Site, SiteSize
from mut3r_analysis.attention.statistics import STATISTICS, compute
from mut3r_analysis.attention.tokens import ROLES
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.foreign.naming import Chosen, Naming, Place
from mut3r_analysis.foreign.tokens import Declared, sides
from mut3r_analysis.motion import Gate, GatePlan
from mut3r_analysis.motion.frame_gate import FrameGate
from mut3r_analysis.running.opening import label

_CHECKED_ROWS = 4
_SOFTMAX = (torch.softmax, F.softmax, Tensor.softmax)

_CALLS_NONE = {nn.Linear, nn.LayerNorm, nn.Conv2d, nn.Dropout, nn.Identity, nn.GELU, nn.ReLU}
"""Modules that call no attention. They are most of a model, and a hook costs at every call."""


class Call(NamedTuple):
    """One call of the fused attention, with heads of their own: ``(sample, head, token, channel)``.

    Attributes
    ----------
    q, k, v : Tensor
        Keys and values as often as there are heads; q scaled so that logits are
        ``q k^T / sqrt(channel)``.
    bias : callable or None
        From a range of queries to what the mask adds to their logits.
    shape : tuple of int
        Of the output, as the model expects it.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    bias: Callable[[slice], Tensor] | None
    shape: tuple[int, ...]


def attach(
    model: nn.Module,
    *,
    tokens: Declared | Mapping[str, Declared] = None,
    sites: Chosen = None,
    capture: Capture | None = None,
    gate: Gate | None = None,
    scores: Tensor | None = None,
) -> "Attachment":
    """Capture, and perhaps gate, the attention of any module that calls PyTorch's fused attention.

    Parameters
    ----------
    model : torch.nn.Module
        Left as it is; on leaving the ``with`` block nothing of this remains.
    tokens : Tokens, pair of Tokens, or mapping of kinds to these
        What the tokens are; a pair tells queries and keys apart. None numbers them.
    sites : mapping, callable or sequence, optional
        Mapping: kind of site to a pattern of module paths, as ``{"image_self": "blocks.*.attn"}``;
        ``*`` stands for one part of a path, ``**`` for any number of parts.
        Callable: ``(path, module)`` to a kind, or None to leave it. Sequence: the kind and layer of
        every call of one pass in their turn, as ``"image_self.0"``. By default every call is
        watched, and kinds are the modules' paths without their numbers.
    capture : Capture, optional
        Its statistics, layers, heads, maps (``"all"``), archive and type; by default all
        statistics. Which sites is said by `sites`.
    gate : Gate, optional
        Acts at kinds called ``image_self``, ``state_to_image`` and ``image_to_state``.
    scores : Tensor, optional
        Motion scores ``(sample, patch_row, patch_col)`` for the gate.

    Returns
    -------
    Attachment
        To be used in a ``with`` statement; ``data`` is what was captured.

    Raises
    ------
    InvalidArgument
        For a gate without scores, at sites that are not named, or patterns that fit nothing.

    Examples
    --------
    >>> encoder = torch.nn.TransformerEncoderLayer(32, 4, batch_first=True).eval()
    >>> with attach(encoder) as watched:
    ...     _ = encoder(torch.zeros(1, 6, 32))
    >>> watched.data["attention/self_attn/entropy"].sizes["query"]
    6
    """
    if not isinstance(model, nn.Module):
        raise InvalidArgument(f"attach needs a torch.nn.Module, got {type(model).__name__}")
    if (gate is None) != (scores is None):
        raise InvalidArgument("a gate acts on motion scores: give both gate= and scores=, or none")
    naming = Naming(model, sites)
    unnamed = [] if gate is None else [kind for kind in gate.sites if not naming.layers(kind)]
    if unnamed:
        raise InvalidArgument(
            f"the gate acts at {', '.join(unnamed)}; say with sites= which modules these are"
        )
    return Attachment(model, tokens, naming, capture or Capture(), gate, scores)


class Attachment:
    """What watches a model; made by :func:`attach`.

    Attributes
    ----------
    check : dict of str to float
        Module to the largest difference between the output of its first head and the same computed
        anew from the captured queries, keys and values (some rows), over the output's size.
    not_visible : dict of str to str
        Modules that compute attention where it cannot be seen, and what to do.
    """

    def __init__(
        self,
        model: nn.Module,
        tokens: Declared | Mapping[str, Declared],
        naming: Naming,
        capture: Capture,
        gate: Gate | None,
        scores: Tensor | None,
    ) -> None:
        self._model, self._tokens, self._naming, self._capture = model, tokens, naming, capture
        self._gate, self._scores = gate, scores
        self._rows = [STATISTICS[name] for name in capture.statistics]
        self._stack: list[str] = []
        self._open: dict[str, list[tuple[Place, dict[str, Tensor]]]] = {}
        self._passes: list[dict[str, list[tuple[Place, dict[str, Tensor]]]]] = []
        self._counts: dict[str, dict[str, int]] = {}
        self._pose_keys: dict[str, tuple[dict[str, int], int | None]] = {}
        self._turn = 0
        self._gates: dict[str, FrameGate] = {}
        self._static_mass: dict[int, Tensor] = {}
        self._leaving = ExitStack()
        self.check: dict[str, float] = {}
        self.not_visible: dict[str, str] = {}

    def __enter__(self) -> Self:
        paths: dict[nn.Module, str] = {}
        for path, module in self._model.named_modules():
            paths.setdefault(module, path)
        for module, path in paths.items():
            if type(module) in _CALLS_NONE and path:
                continue
            self._leaving.enter_context(_hooked(module, path, self._stack, self._ended))
        # The fast path of TransformerEncoder and MultiheadAttention makes no visible call.
        before = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        self._leaving.callback(torch.backends.mha.set_fastpath_enabled, before)
        self._leaving.enter_context(_Mode(self))
        return self

    def __exit__(self, *error: object) -> None:
        self._leaving.close()
        if self.not_visible:
            warnings.warn(
                "attention that was not visible: "
                + "; ".join(f"{path}: {why}" for path, why in self.not_visible.items()),
                stacklevel=2,
            )

    def _ended(self, path: str) -> None:
        """Close a pass when the model itself has returned."""
        if path == "" and self._naming.turns is None:
            self._close_pass()

    def _close_pass(self) -> None:
        if self._open:
            self._passes.append(self._open)
        self._open, self._turn = {}, 0
        self._gates, self._static_mass = {}, {}

    def attention(self, plain: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """Do one call of the fused attention: show it, and gate it where a gate acts."""
        place = self._naming.place(self._stack, self._turn)
        self._turn += 1
        if place is None:
            return plain(*args, **kwargs)
        call, dropout = _parsed(*args, **kwargs)
        out = self._gated(place, call)
        if out is None:
            out = plain(*args, **kwargs)
            if place.module not in self.check and not dropout:
                self.check[place.module] = _difference(call, out)
        else:
            out = out.reshape(call.shape)
        self._record(place, call)
        if self._turn == self._naming.turns:
            self._close_pass()
        return out

    def _gated(self, place: Place, call: Call) -> Tensor | None:
        if self._gate is None or place.kind not in self._gate.sites:
            return None
        if call.bias is not None:
            raise InvalidArgument(f"{place.module} attends under a mask; gates act without one")
        if place.kind not in self._gates:
            self._gates[place.kind] = self._gate_of(self._gate, place.kind, call)
        return self._gates[place.kind](Site(place.kind, place.layer), call.q, call.k, call.v)

    def _gate_of(self, gate: Gate, kind: str, call: Call) -> FrameGate:
        """Return a pass's gate at one kind of site, whose sizes its first call shows."""
        axes = sides(self._tokens, kind, {"query": call.q.shape[-2], "key": call.k.shape[-2]})
        size = SiteSize(self._naming.layers(kind), call.q.shape[1], call.q.shape[-1])
        plan = GatePlan(gate.only(kind), {kind: size})
        row = SITE_KINDS[kind]
        assert self._scores is not None
        acting = plan.of_frame(
            self._scores,
            {row.queries: axes["query"], row.keys: axes["key"]},
            record_mass=gate.image_to_state == "pair_state",
        )
        # what one layer's state tokens read is known to the gate of the next
        acting.static_mass = self._static_mass
        return acting

    def _record(self, place: Place, call: Call) -> None:
        capture = self._capture
        if capture.layers is not None and place.layer not in capture.layers:
            return
        q, k = call.q.detach(), call.k.detach()
        self._counts[place.kind] = {"query": q.shape[-2], "key": k.shape[-2]}
        if capture.heads is not None:
            q, k = q[:, list(capture.heads)], k[:, list(capture.heads)]
        found = compute(self._rows, q, k, pose_key=self._pose_key(place.kind), bias=call.bias)
        if capture.maps == "all":
            whole = logits(q, k)
            found["logits"] = whole if call.bias is None else whole + call.bias(slice(None))
        held = {name: each.to("cpu", getattr(torch, capture.dtype)) for name, each in found.items()}
        if capture.archive:
            kept = getattr(torch, capture.archive)
            held |= {"rotated_query": q.to("cpu", kept), "rotated_key": k.to("cpu", kept)}
        self._open.setdefault(place.kind, []).append((place, held))

    def _pose_key(self, kind: str) -> int | None:
        """Return the place of the pose token among the keys; the same for all layers of a kind."""
        counts = self._counts[kind]
        if kind not in self._pose_keys or self._pose_keys[kind][0] != counts:
            axis = sides(self._tokens, kind, counts)["key"]
            self._pose_keys[kind] = counts, axis.first("pose")
        return self._pose_keys[kind][1]

    @property
    def data(self) -> xr.DataTree:
        """Everything captured: ``attention/<kind>`` (pass, sample, layer, head, query | key).

        Raises
        ------
        InvalidArgument
            When nothing was seen, or what was seen cannot be stacked.
        """
        if not self._passes:
            hidden = "; ".join(f"{path}: {why}" for path, why in self.not_visible.items())
            raise InvalidArgument(
                f"no call of the fused attention was seen in {type(self._model).__name__}. "
                + (f"Not visible: {hidden}" if hidden else "Run the model inside the with block")
            )
        kinds = {kind for each in self._passes for kind in each}
        nodes = {f"/attention/{kind}": self._stacked(kind) for kind in sorted(kinds)}
        attrs = {"model": type(self._model).__name__, "self_check": self.check,
                 "not_visible": self.not_visible}  # fmt: skip
        if self._gate is not None:
            attrs["gate"] = self._gate.to_json()
        return xr.DataTree.from_dict({"/": xr.Dataset(attrs=attrs), **nodes})

    def _stacked(self, kind: str) -> xr.Dataset:
        passes = [each[kind] for each in self._passes if kind in each]
        places = [place for place, _ in passes[0]]
        try:
            held = {
                name: torch.stack(
                    [torch.stack([found[name] for _, found in each], dim=1) for each in passes]
                ).numpy()
                for name in passes[0][0][1]
            }
        except (RuntimeError, KeyError) as error:
            raise InvalidArgument(
                f"calls of {kind} differ in samples, heads, tokens or number ({error}); give those "
                "that differ kinds of their own with sites="
            ) from error
        base = ("pass", "sample", "layer", "head")
        dims: dict[str, tuple[str, ...]] = {
            row.name: (*base, row.side) for row in STATISTICS.values()
        }
        dims |= {"logits": (*base, "query", "key")}
        dims |= {f"rotated_{side}": (*base, side, "channel") for side in ("query", "key")}
        dataset = xr.Dataset({name: (dims[name], values) for name, values in held.items()})
        for name in dataset:
            if name in STATISTICS:
                row = STATISTICS[str(name)]
                dataset[name].attrs = {"long_name": row.long_name, "units": row.units}
        heads = self._capture.heads or range(dataset.sizes["head"])
        dataset = dataset.assign_coords(
            layer=[place.layer for place in places],
            module=("layer", [place.module for place in places]),
            head=list(heads),
        )
        for side, axis in sides(self._tokens, kind, self._counts[kind]).items():
            if side in dataset.dims:
                prefix = "key_" if side == "key" else ""
                coordinates = {"token": axis.role, "patch_row": axis.row, "patch_col": axis.column}
                for name, values in coordinates.items():
                    dataset = dataset.assign_coords({f"{prefix}{name}": (side, values)})
                dataset[f"{prefix}token"].attrs["labels"] = ROLES
        return label(dataset)


class _Mode(TorchFunctionMode):
    """Sees every call of the fused attention, and softmaxes that look like attention."""

    def __init__(self, watching: Attachment) -> None:
        super().__init__()
        self._watching = watching

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        watching = self._watching
        path = watching._stack[-1] if watching._stack else ""
        if func is F.scaled_dot_product_attention:
            return watching.attention(func, *args, **kwargs)
        if func is F.multi_head_attention_forward:
            if kwargs.get("need_weights", True):
                watching.not_visible[path] = (
                    "returns its weights and makes them by hand; call it with need_weights=False"
                )
            with _seen_inside(watching):
                return func(*args, **kwargs)
        if func in _SOFTMAX and isinstance(args[0], Tensor) and args[0].ndim >= 3:
            watching.not_visible.setdefault(
                path,
                "a softmax by hand; where the model has a switch choose the fused attention "
                "(attn_implementation='sdpa', fused_attn=True)",
            )
        return func(*args, **kwargs)


@contextmanager
def _seen_inside(watching: Attachment) -> Any:
    """Show the calls that a function of PyTorch makes itself, where a mode is not asked."""
    plain = F.scaled_dot_product_attention

    def seen(*args: Any, **kwargs: Any) -> Tensor:
        # A gate calls the fused attention itself, which is not the model's call.
        F.scaled_dot_product_attention = plain
        try:
            return watching.attention(plain, *args, **kwargs)
        finally:
            F.scaled_dot_product_attention = seen

    F.scaled_dot_product_attention = seen
    try:
        yield
    finally:
        F.scaled_dot_product_attention = plain


@contextmanager
def _hooked(module: nn.Module, path: str, stack: list[str], ended: Callable[[str], None]) -> Any:
    """Keep a stack of the modules whose forward is running."""

    def leave(*_: object) -> None:
        stack.pop()
        ended(path)

    entering = module.register_forward_pre_hook(lambda *_: stack.append(path))
    leaving = module.register_forward_hook(leave, always_call=True)
    try:
        yield
    finally:
        entering.remove()
        leaving.remove()


def _parsed(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> tuple[Call, bool]:
    """Return the call with four dimensions, and whether numbers are dropped in it."""
    q, k, v = (_four(each) for each in (query, key, value))
    own = q.shape[-1] ** -0.5
    if scale is not None and not math.isclose(scale, own, rel_tol=1e-6):
        q = q * (scale / own)
    if enable_gqa:
        k, v = (each.repeat_interleave(q.shape[1] // each.shape[1], dim=1) for each in (k, v))
    bias: Callable[[slice], Tensor] | None = None
    if is_causal:
        last = torch.arange(q.shape[-2], device=q.device)
        keys = torch.arange(k.shape[-2], device=q.device)

        def bias(part: slice) -> Tensor:
            return torch.where(keys > last[part, None], -torch.inf, 0.0)
    elif attn_mask is not None:
        mask = attn_mask

        def bias(part: slice) -> Tensor:
            rows = mask if mask.shape[-2] == 1 else mask[..., part, :]
            rows = torch.where(rows, 0.0, -torch.inf) if rows.dtype == torch.bool else rows
            return rows.float()

    return Call(q, k, v, bias, (*query.shape[:-1], value.shape[-1])), dropout_p > 0


def _four(tokens: Tensor) -> Tensor:
    """``(sample, head, token, channel)``, with one sample or head where there is no such dim."""
    if tokens.ndim > 4:
        return tokens.flatten(0, tokens.ndim - 4)
    return tokens[(None,) * (3 - tokens.ndim)][:, None] if tokens.ndim < 4 else tokens


def _difference(call: Call, out: Tensor) -> float:
    """Compute some rows of the first head anew; largest difference over the output's largest."""
    part = slice(0, _CHECKED_ROWS)
    q, k, v = (each[0, 0].detach().double() for each in (call.q, call.k, call.v))
    z = q[part] @ k.mT * q.shape[-1] ** -0.5
    if call.bias is not None:
        rows = call.bias(part).double()
        z = z + rows.reshape(-1, *rows.shape[-2:])[0]
    anew = z.softmax(dim=-1) @ v
    seen = _four(out.detach())[0, 0, part].double()
    return float((anew - seen).abs().max() / seen.abs().max().clamp_min(1e-12))
