"""What the write rules compute, one function each.

Letters of the formulas: s is the state before, p the proposal (the decoder's output state),
b = sigmoid(mean logit) TTT3R's rate, D = p - s.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from mut3r_analysis.attention.projection import on_queries
from mut3r_analysis.backbones.write_rule import Outcome, Settings
from mut3r_analysis.backbones.write_signals import Signals

_TINY = 1e-6
"""Keeps released quotients finite; part of their formulas."""


def ones(signals: Signals) -> Tensor:
    """Return the rate of a frame that is written in full."""
    return signals["proposal"].new_ones(signals["proposal"].shape[:2], dtype=torch.float32)


def full_rate(signals: Signals, past: Signals | None, settings: Settings) -> Outcome:
    """CUT3R: every token is replaced."""
    return Outcome(ones(signals))


def const(signals: Signals, past: Signals | None, settings: Settings) -> Outcome:
    """One rate for all tokens and frames."""
    return Outcome(ones(signals) * settings["rate"])


def ttt3r(signals: Signals, past: Signals | None, settings: Settings) -> Outcome:
    """TTT3R: sigmoid of the mean state-to-image logit."""
    return Outcome(signals["mean_logit"].sigmoid())


def ttsa3r_memory(signals: Signals, settings: Settings) -> Signals:
    """Return what TTSA3R compares the next frame with."""
    return {name: signals[name].float() for name in ("features", "proposal")}


def ttsa3r(signals: Signals, past: Signals | None, settings: Settings) -> Outcome:
    """TTSA3R: temporal change of the state times spatial change where the state looks.

    Two faults of the authors' code are not repeated. There, a frame that must not write
    (``update`` false) writes nevertheless from the second frame on; here the rate is multiplied by
    that flag, as in TTT3R. There, the batch path keeps its buffers of the previous frame over a
    reset and compares across it; here they are forgotten, as in the authors' recurrent path, and
    the frame after a reset is written in full. With ``advance=always``, ``after_reset=rule`` and
    ``forget=never`` both faults are repeated, and the numbers are those of released code.

    A frame that must not write leaves the history, too, as it was: the next one is compared with
    the last frame that wrote. With ``advance=always`` the history moves with every frame.
    """
    memory = ttsa3r_memory(signals, settings)
    if past is None:
        return Outcome(ones(signals), memory)
    change = (memory["proposal"] - past["proposal"]).norm(dim=-1)
    temporal = (change / change.mean(dim=-1, keepdim=True) - 1.5).sigmoid()
    drift = 1 - F.cosine_similarity(memory["features"], past["features"], dim=-1)
    # Key 0 is the pose token.
    mean_map = signals["mean_logit_map"][..., 1:]
    spatial = (mean_map.abs() * drift[:, None]).amax(dim=-1).sigmoid()
    return Outcome(temporal * spatial, memory)


def static_mass(signals: Signals, past: Signals | None, settings: Settings) -> Outcome:
    """Share of what each state token read that is static, mean over layers."""
    return Outcome(signals["static_mass"].clamp(0, 1))


def frame(signals: Signals, past: Signals | None, settings: Settings) -> Outcome:
    """One rate for a whole frame: 1 - alpha mean(g)."""
    mean = signals["motion"].float().mean(dim=1, keepdim=True)
    return Outcome(1 - settings["alpha"] * mean)


def raymap3r(signals: Signals, past: Signals | None, settings: Settings) -> Outcome:
    """RayMap3R's gate: tokens that read what moves, against the other tokens, write less.

    What a token reads is the mean score of the patches it attends to. Released code takes raw
    differences between what the image and the state alone say of depth; here it is the cue's score.
    """
    static = _static(signals, settings)
    if past is not None:
        static = settings["decay"] * past["static"] + (1 - settings["decay"]) * static
    spare = 1 - settings["coverage"] * (1 - static).mean(dim=1, keepdim=True)
    strength = (settings["strength"] * spare).clamp(0, 1)
    rate = (1 - strength + strength * static).clamp_min(settings["floor"])
    return Outcome(rate * spare.clamp(settings["least"], 1), {"static": static})


def raymap3r_memory(signals: Signals, settings: Settings) -> Signals:
    """Remember how static the tokens of a frame are that is written in full."""
    return {"static": _static(signals, settings)}


def _static(signals: Signals, settings: Settings) -> Tensor:
    """Sigmoid of how far below the median a token's motion is, in ranges between quartiles."""
    moving = on_queries(signals["motion"].float(), signals["attention"])
    quarters = torch.tensor([0.25, 0.5, 0.75], device=moving.device)
    low, median, high = moving.quantile(quarters, dim=1)[..., None]
    apart = (high - low).clamp_min(torch.finfo(moving.dtype).tiny)
    return (settings["slope"] * (median - moving) / apart).sigmoid()


def bottom_k(signals: Signals, past: Signals | None, settings: Settings) -> Outcome:
    """MeMix: the chunks of tokens whose proposals are least like the frame's mean token write.

    The score of a token is p . mean of the embedded patches, that of a chunk the mean of its own.
    """
    mean = signals["embedded"].float().mean(dim=1, keepdim=True)
    scores = (signals["proposal"].float() @ mean.mT).squeeze(-1)
    tokens = scores.shape[1]
    length = math.ceil(tokens / min(int(settings["chunks"]), tokens))
    score = torch.stack([part.mean(dim=1) for part in scores.split(length, dim=1)], dim=1)
    count = round(settings["share"] * score.shape[1])
    if settings["anchor"]:
        score[:, 0] = math.inf
        count = min(count, score.shape[1] - 1)
    lowest = score.topk(count, dim=1, largest=False).indices
    chosen = torch.zeros_like(score).scatter(1, lowest, 1.0)
    return Outcome(chosen.repeat_interleave(length, dim=1)[:, :tokens])


def filt3r_memory(signals: Signals, settings: Settings) -> Signals:
    """Return FILT3R's filter after a full write: it knows no average of changes yet."""
    whole = ones(signals)
    return {
        "proposal": signals["proposal"].float(),
        "variance": whole * settings["variance"],
        "average": whole[:, :1] * math.nan,
    }


def filt3r(signals: Signals, past: Signals | None, settings: Settings) -> Outcome:
    """FILT3R: the gain of a scalar Kalman filter per token, noisier where the proposal moved."""
    new = filt3r_memory(signals, settings)
    if past is None:
        change = ones(signals)
        average, variance = change[:, :1], new["variance"]
    else:
        change = (new["proposal"] - past["proposal"]).norm(dim=-1)
        own, known, variance = change.mean(dim=1, keepdim=True), past["average"], past["variance"]
        average = torch.where(known.isnan(), own, known + settings["weight"] * (own - known))
        average = average.clamp_min(settings["least_change"])
    ratio = change / (average + _TINY)
    noise = (
        settings["noise_low"]
        + (settings["noise_high"] - settings["noise_low"])
        * (settings["slope"] * (ratio - settings["threshold"])).sigmoid()
    )
    prior = settings["keep"] * variance + noise
    gain = prior / (prior + settings["observed"] + _TINY)
    gain = gain.clamp(settings["gain_low"], settings["gain_high"])
    posterior = (1 - gain).square() * prior + gain.square() * settings["observed"]
    memory = {**new, "variance": posterior.clamp_min(_TINY), "average": average}
    if settings["advance"] and past is not None:
        # The released code starts the average, and moves nothing else, on a frame that only reads.
        writes = signals["writes"][:, None]
        start = torch.where(past["average"].isnan(), average, past["average"])
        memory = {
            "proposal": torch.where(writes[..., None], memory["proposal"], past["proposal"]),
            "variance": torch.where(writes, memory["variance"], past["variance"]),
            "average": torch.where(writes, average, start),
        }
    return Outcome(gain, memory)


def _ranks(values: Tensor) -> Tensor:
    """Rank of each value ``(batch, token)`` among its row, 0 for the least."""
    return values.argsort(dim=1, stable=True).argsort(dim=1).float()


def recal3r(signals: Signals, past: Signals | None, settings: Settings) -> Outcome:
    """ReCal3R: TTT3R's rate, pulled to a base rate where drift and entropy call it unreliable."""
    rate = signals["mean_logit"].sigmoid()
    earlier = torch.zeros_like(rate) if past is None else past["pressure"]
    pressure = settings["decay"] * earlier + (1 - settings["decay"]) * rate
    seen, made = signals["embedded"].float(), signals["decoded"].float()
    error = (seen - made).norm(dim=-1).mean(dim=1) / (seen.norm(dim=-1).mean(dim=1) + _TINY)
    candidate = rate * (error - 0.2).sigmoid()[:, None] * (-pressure).exp()
    tokens = rate.shape[1]
    drift = (signals["before"].float() - signals["initial"].float()).norm(dim=-1)
    near = 1 - (_ranks(drift) + 1) / tokens
    near = torch.where(drift.amax(dim=1, keepdim=True) > 0, near, 0.5)
    entropy = signals["entropy"].flatten(1, 2)
    entropy = entropy.amax(dim=1) if settings["heads"] else entropy.mean(dim=1)
    spread = _ranks(entropy) / (tokens - 1)
    sure = near * (1 - spread)
    sure = sure / (sure + (1 - near) * spread + 1e-8)
    unreliable = 1 - sure * (2 * sure - 1).square()
    mixed = (1 - unreliable) * candidate + unreliable * settings["base"]
    pulled = (mixed + mixed.mean(dim=1, keepdim=True)) / 2
    return Outcome(pulled.clamp(0, 1), {"pressure": pressure})


def _step(signals: Signals) -> tuple[Tensor, Tensor]:
    """Return s and D."""
    before = signals["before"].float()
    return before, signals["proposal"].float() - before


def _moved(past: Signals | None, name: str, value: Tensor, decay: float) -> Tensor:
    """Return a moving average whose first value is its own."""
    return value if past is None else decay * past[name] + (1 - decay) * value


def ortho(signals: Signals, past: Signals | None, settings: Settings) -> Outcome:
    """Move less along the direction in which a token keeps drifting than across it."""
    before, step = _step(signals)
    direction = F.normalize(step, dim=-1)
    novel, along = settings["novel"], settings["drift"]
    if past is None:
        energy = step.new_zeros(step.shape[:2]) * math.nan
        return Outcome(ones(signals), {"drift": direction, "energy": energy}, before + novel * step)
    drift = F.normalize(
        settings["decay"] * past["drift"] + (1 - settings["decay"]) * direction, dim=-1
    )
    part = torch.linalg.vecdot(step, drift)[..., None] * drift
    own, known = torch.linalg.vecdot(direction, drift).square(), past["energy"]
    energy = settings["decay"] * known + (1 - settings["decay"]) * own
    energy = torch.where(known.isnan(), own, energy)
    share: Tensor | float = along
    if settings["adaptive"]:
        share = (along + (novel - along) * energy)[..., None]
    if settings["threshold"]:
        share = torch.where(energy > 0.5, novel, along)[..., None]
    target = before + novel * (step - part) + share * part
    return Outcome(ones(signals), {"drift": drift, "energy": energy}, target)


def brake(signals: Signals, past: Signals | None, settings: Settings) -> Outcome:
    """Write less where a token goes on in the direction of its last step."""
    _, step = _step(signals)
    memory = {"step": step}
    if past is None:
        return Outcome(0.5 * ones(signals), memory)
    cosine = F.cosine_similarity(step, past["step"], dim=-1)
    return Outcome((-settings["slope"] * cosine).sigmoid(), memory)


def clip(signals: Signals, past: Signals | None, settings: Settings) -> Outcome:
    """Shorten steps that are longer than a token's moving average of them."""
    before, step = _step(signals)
    norm = step.norm(dim=-1)
    average = _moved(past, "norm", norm, settings["decay"])
    longest = settings["most"] * average
    shorter = (longest / norm.clamp_min(1e-8)).clamp_max(1) if past is not None else ones(signals)
    target = before + settings["share"] * shorter[..., None] * step
    return Outcome(ones(signals), {"norm": average}, target)


def l2gate(signals: Signals, past: Signals | None, settings: Settings) -> Outcome:
    """Write less where a token's step is long beside its moving average."""
    norm = _step(signals)[1].norm(dim=-1)
    average = _moved(past, "norm", norm, settings["decay"])
    rate = (-settings["slope"] * (norm / (average + _TINY) - 1)).sigmoid()
    return Outcome(rate, {"norm": average})


def spectral_memory(signals: Signals, settings: Settings) -> Signals:
    """Return the average of states at its start."""
    return {"state": signals["before"].float()}


def spectral(signals: Signals, past: Signals | None, settings: Settings) -> Outcome:
    """Write less where the proposal is far from a token's moving average state."""
    average = _moved(past, "state", signals["before"].float(), settings["decay"])
    far = (signals["proposal"].float() - average).norm(dim=-1)
    ratio = far / far.amax(dim=1, keepdim=True).clamp_min(_TINY)
    return Outcome((-settings["slope"] * (ratio - 0.5)).sigmoid(), {"state": average})


def _low_power(change: Tensor, part: int) -> Tensor:
    """Power ``(batch, 1)`` of the lowest frequencies of ``(batch, y, x)``."""
    rows, columns = (size // part for size in change.shape[1:])
    power = torch.fft.fft2(change).abs().square()
    power = torch.cat([power[:, :rows], power[:, -rows:]], dim=1)
    power = torch.cat([power[..., :columns], power[..., -columns:]], dim=2)
    return power.mean(dim=(1, 2))[:, None]


def geogate_memory(signals: Signals, settings: Settings) -> Signals:
    """Return depth and the average of its changes, which has no value yet."""
    return {"depth": signals["depth"].float(), "power": ones(signals)[:, :1] * math.nan}


def geogate(signals: Signals, past: Signals | None, settings: Settings) -> Outcome:
    """One rate for a frame: low where depth changed more than it used to, at low frequencies."""
    memory = geogate_memory(signals, settings)
    whole = ones(signals)[:, :1]
    if past is None:
        return Outcome(whole, memory)
    there = (memory["depth"] > 1e-4) & (past["depth"] > 1e-4)
    ratio = memory["depth"].clamp_min(1e-4).log() - past["depth"].clamp_min(1e-4).log()
    power = _low_power(torch.where(there, ratio, 0.0), int(settings["part"]))
    known = past["power"]
    average = settings["decay"] * known + (1 - settings["decay"]) * power
    average = torch.where(known.isnan(), power, average)
    enough = (there.sum(dim=(1, 2)) >= 100)[:, None]
    rate = (-settings["slope"] * (power / (average + _TINY) - 1)).sigmoid()
    rate = torch.where(enough & ~known.isnan(), rate, 1.0)
    return Outcome(rate, {**memory, "power": torch.where(enough, average, known)})


def memgate_memory(signals: Signals, settings: Settings) -> Signals:
    """Return the mean image and the average of its changes, which has no value yet."""
    mean = signals["image"].float().mean(dim=1)
    return {"image": mean, "power": ones(signals)[:, :1] * math.nan}


def memgate(signals: Signals, past: Signals | None, settings: Settings) -> Outcome:
    """Rate of the pose memory alone: low where the image hardly changed, at low frequencies."""
    memory, whole = memgate_memory(signals, settings), ones(signals)
    if past is None:
        return Outcome(whole, memory, memory_rate=whole[:, :1])
    power = _low_power(memory["image"] - past["image"], int(settings["part"]))
    known = past["power"]
    average = settings["decay"] * known + (1 - settings["decay"]) * power
    average = torch.where(known.isnan(), power, average)
    usual = settings["skip"] * average + _TINY
    rate = (settings["slope"] * (power / usual - 1)).sigmoid()
    rate = torch.where(known.isnan(), 1.0, rate)
    return Outcome(whole, {**memory, "power": average}, memory_rate=rate)


def features_memory(signals: Signals, settings: Settings) -> Signals:
    """Return what the next frame's features are compared with."""
    return {"features": signals["features"].float()}


def feature_change(signals: Signals, past: Signals | None, settings: Settings) -> Outcome:
    """One rate for a frame: 1 - exp(-gain mean over patches of 1 - cos(features, before))."""
    memory = features_memory(signals, settings)
    if past is None:
        return Outcome(ones(signals)[:, :1], memory)
    change = 1 - F.cosine_similarity(memory["features"], past["features"], dim=-1)
    return Outcome(1 - (-settings["gain"] * change.mean(dim=1, keepdim=True)).exp(), memory)


def pose_memory(signals: Signals, settings: Settings) -> Signals:
    """Return what the next frame's pose is compared with."""
    return {"pose": signals["pose"].float()}


def _pose_step(signals: Signals, past: Signals, settings: Settings) -> Tensor:
    """Weighted length ``(batch, 1)`` of translation and of the quaternion's change."""
    step = signals["pose"].float() - past["pose"]
    parts = step[:, :3].norm(dim=-1), step[:, 3:].norm(dim=-1)
    return (settings["translation"] * parts[0] + settings["rotation"] * parts[1])[:, None]


def pose_change(signals: Signals, past: Signals | None, settings: Settings) -> Outcome:
    """One rate for a frame: min(1, weighted change of the predicted pose)."""
    rate = ones(signals)[:, :1] if past is None else _pose_step(signals, past, settings)
    return Outcome(rate.clamp_max(1), pose_memory(signals, settings))


def pas3r(signals: Signals, past: Signals | None, settings: Settings) -> Outcome:
    """PAS3R: change of the predicted pose times how much fine detail the image has."""
    memory = pose_memory(signals, settings)
    if past is None:
        return Outcome(ones(signals)[:, :1], memory)
    grey = signals["image"].float().mean(dim=1)
    size = torch.fft.fft2((grey + 1) / 2).abs()
    rows, columns = (torch.fft.fftfreq(n, device=grey.device) for n in grey.shape[1:])
    outside = rows[:, None].square() + columns.square() > settings["radius"] ** 2
    share = (size * outside).sum(dim=(1, 2)) / size.sum(dim=(1, 2))
    detail = (20 * (share - 0.1)).sigmoid()[:, None]
    return Outcome((_pose_step(signals, past, settings) * detail).clamp_max(1), memory)
