"""Runs to scores: per frame, per sequence, and one number with an interval per metric."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, overload

import numpy as np
import xarray as xr

from mut3r_analysis.errors import InvalidArgument, Mut3rError
from mut3r_analysis.evaluation.averages import LEVEL, add_means
from mut3r_analysis.evaluation.eligibility import LacksVariable
from mut3r_analysis.evaluation.runs import Run, provenance, read_runs
from mut3r_analysis.evaluation.shortfall import shortfall
from mut3r_analysis.evaluation.tasks import score_run
from mut3r_analysis.evaluation.truth import Truth, Truths
from mut3r_analysis.foundation.fields import instance_of
from mut3r_analysis.foundation.labelling import beside
from mut3r_analysis.metrics.bootstrap import TOO_FEW, sequences_needed
from mut3r_analysis.metrics.catalogue import DEFAULT, PROTOCOLS
from mut3r_analysis.metrics.catalogue import protocol as find_protocol
from mut3r_analysis.metrics.errors import UndefinedMetric
from mut3r_analysis.metrics.protocols import Protocol, find_metric
from mut3r_analysis.sequences.layouts.catalogue import canonical_sequence

_LISTED = 6


class NothingScored(UndefinedMetric):
    """No run could be scored.

    Attributes
    ----------
    undefined : bool
        Whether that is because the metric has no value on any of them, and not because runs are not
        what the protocol scores.
    """

    def __init__(self, message: str, errors: Iterable[Mut3rError]) -> None:
        super().__init__(message)
        self.undefined = all(isinstance(error, UndefinedMetric) for error in errors)


@overload
def evaluate(  # type: ignore[overload-overlap]  # a mapping is an iterable as well
    runs: Mapping[str, Run | Sequence[Run]],
    protocol: str | Protocol = "default",
    *,
    truth: Truth | Mapping[str, Truth] | None = None,
) -> dict[str, xr.Dataset]: ...
@overload
def evaluate(
    runs: Run | Iterable[Run],
    protocol: str | Protocol = "default",
    *,
    truth: Truth | Mapping[str, Truth] | None = None,
) -> xr.Dataset: ...
def evaluate(
    runs: Any,
    protocol: str | Protocol = "default",
    *,
    truth: Truth | Mapping[str, Truth] | None = None,
) -> xr.Dataset | dict[str, xr.Dataset]:
    """Score runs of one system under a named protocol, one run per sequence.

    Parameters
    ----------
    runs : DataTree, path, several of them, or a mapping
        What `run`, `run_pairs`, `reconstruct`, `open_run` or `import_predictions` gave, or stores
        of runs; several systems by name, such as ``{"plain": run, "gated": other}``, are scored
        each by itself.
    protocol : str or Protocol
        A protocol or its id. ``"default"`` scores depth (``default:depth:scale_median``) and pose
        (``default:pose:sim3``) as far as predictions and truth go, on every frame of the runs.
    truth : Dataset, str, Path or mapping, optional
        The sequence at source size, opened whole or with the protocol's frames, or a name that
        `open_sequence` takes; for several runs a mapping from sequence names, or a data set such
        as ``"sintel:/data/sintel/training"``. By default the run's own group ``/truth``, which
        lies on the grid of the predictions. Published protocols for depth and reconstruction
        compare at the size of the ground truth and need `truth`.

    Returns
    -------
    Dataset, or dict of str to Dataset
        For a mapping by the same names, as `table` and `compare` take them. Dims ``sequence``, one
        entry per run, and ``frame``, the index of the frame in its source, over the frames of all
        sequences: NaN where a sequence does not have that frame.

        - ``<metric>`` (sequence): NaN where the sequence was skipped; ``skipped`` (sequence) says
          why, and is empty elsewhere;
        - ``frame_<metric>`` (sequence, frame): what the frame contributes. A relative pose error
          stands at the first frame of its pair, masks have ``frame_region`` and
          ``frame_boundary``;
        - ``undefined`` (sequence): whether it was skipped because the metric has no value on it, as
          that of a camera at rest, and not because the run is not what the protocol scores;
        - ``n_frames``, ``n_pixels`` (sequence), ``frame_pixels`` (sequence, frame): what was
          scored;
        - ``depth_alignment_...``, ``pose_alignment_...`` (sequence): the fitted alignment;
        - ``mean_<metric>``: the mean over the sequences that were not skipped, as the protocol
          weighs them, and ``interval_<metric>`` (bound), its bootstrap interval over sequences and
          frames (NaN for a single sequence).

        Attributes: ``protocol``, ``protocols`` (JSON of all it says), ``n_sequences``,
        ``n_valid``, ``missing`` (sequences of the protocol without a run), ``incomplete`` (what the
        number lacks of the protocol's frames and sequences; empty where nothing), ``not_scored`` (a
        part of ``"default"`` that no run or truth has), ``verdict`` (whether it is the protocol's
        number, and there are enough sequences for the interval to mean something), ``runs`` (JSON:
        what each run says of itself) and ``runs_sha256``.

    Raises
    ------
    InvalidArgument
        Runs of different systems, two runs of one sequence, or no runs.
    NothingScored
        No run could be scored; the message says why for each.

    Notes
    -----
    A run that the protocol does not score (prepared otherwise, other frames, no truth), or on
    which a metric has no value, is skipped, named, and left out of the mean. A protocol with
    ``on_failure="raise"`` raises instead.

    Examples
    --------
    >>> scene = m3.open_sequence("scenes/orbit-03", stop=3)
    >>> scores = evaluate(m3.run("tiny", scene, outputs=("pose", "depth"), progress=False))
    >>> scores["abs_rel"].dims, scores["frame_abs_rel"].dims
    (('sequence',), ('sequence', 'frame'))
    """
    chosen = named_protocols(protocol)
    if isinstance(runs, Mapping) and not isinstance(runs, xr.DataTree | xr.Dataset):
        by_name: dict[str, Any] = {}
        for system, own in runs.items():
            try:
                by_name[system] = evaluate(own, protocol, truth=truth)
            except Mut3rError as error:
                error.args = (f"{system}: {error}", *error.args[1:])
                raise
        return by_name
    trees = read_runs(runs)
    truths = Truths(truth, list(trees))
    rows: dict[str, xr.Dataset] = {}
    reasons: dict[str, dict[str, Mut3rError]] = {one.id: {} for one in chosen}
    for name, tree in trees.items():
        found = []
        for one in chosen:
            try:
                found.append(_score_sequence(one, name, tree, truths))
            except Mut3rError as error:
                if one.on_failure == "raise":
                    raise
                reasons[one.id][name] = error
        # Attributes are those of the empty one: what was scored how says the whole.
        rows[name] = xr.merge(
            [xr.Dataset(), *found], join="outer", compat="override", combine_attrs="override"
        )
    scored, left_out = _with_values(chosen, reasons, trees)
    scores = _label(beside(rows, "sequence"), scored, reasons)
    for one in scored:
        scores = add_means(scores, one)
    return scores.assign_attrs(_attributes(protocol, scored, left_out, trees, scores))


def named_protocols(protocol: str | Protocol) -> tuple[Protocol, ...]:
    """Return the protocols that a name stands for: several for ``"default"``, else one.

    Raises
    ------
    InvalidArgument
        An unknown id, or a protocol of one's own that bears the id of another one.
    """
    if isinstance(protocol, Protocol):
        known = PROTOCOLS.get(protocol.id, protocol)
        if known.digest != protocol.digest or protocol.id == "default":
            raise InvalidArgument(
                f"this protocol is not the {protocol.id!r} of the catalogue; give it an id of its "
                "own, with dataclasses.replace(protocol, id=...), so that nobody compares its "
                "numbers with the other's"
            )
        return (protocol,)
    instance_of("protocol", protocol, str, ", an id such as 'default', or a Protocol")
    if protocol == "default":
        return tuple(PROTOCOLS[id] for id in DEFAULT)
    return (find_protocol(protocol),)


def _score_sequence(protocol: Protocol, name: str, run: xr.DataTree, truths: Truths) -> xr.Dataset:
    if protocol.sequences and not protocol.select([name])[0]:
        raise InvalidArgument(f"{name} is not among the sequences of {protocol.id}")
    return score_run(protocol, run, truths.of(name))


def _with_values(
    chosen: tuple[Protocol, ...],
    reasons: dict[str, dict[str, Mut3rError]],
    trees: Mapping[str, xr.DataTree],
) -> tuple[list[Protocol], list[str]]:
    """Split protocols into those with a value and, in words, those nothing could be scored for.

    Raises
    ------
    NothingScored
        There is no value at all.
    """
    scored = [one for one in chosen if len(reasons[one.id]) < len(trees)]
    if not scored:
        lines = [
            f"{name}: {error}" for errors in reasons.values() for name, error in errors.items()
        ]
        more = [f"and {len(lines) - _LISTED} more"] if len(lines) > _LISTED else []
        raise NothingScored(
            "nothing could be scored\n  " + "\n  ".join(lines[:_LISTED] + more),
            [error for errors in reasons.values() for error in errors.values()],
        )
    kept, left_out = [], []
    for one in chosen:
        errors = list(reasons[one.id].values())
        if one in scored or not all(isinstance(error, LacksVariable) for error in errors):
            kept.append(one)
        else:
            left_out.append(f"{one.id}: {errors[0]}")
    return kept, left_out


def _label(
    scores: xr.Dataset, scored: list[Protocol], reasons: dict[str, dict[str, Mut3rError]]
) -> xr.Dataset:
    """Complete the variables: a metric without any value, counts as numbers, and the skips."""
    for one in scored:
        for metric in one.metrics:
            if metric not in scores:
                nothing = np.full(scores.sizes["sequence"], np.nan)
                scores[metric] = ("sequence", nothing, find_metric(metric).attrs)
            scores[metric].attrs |= {"protocol": one.id, "reduction": one.reduction}
    for name in ("n_frames", "n_pixels", "frame_pixels"):
        if name in scores:
            scores[name] = scores[name].fillna(0).astype(np.int64)
    words, undefined = [], []
    for name in scores["sequence"].values:
        why = {one: reasons[one.id][name] for one in scored if name in reasons[one.id]}
        task = len(scored) > 1
        words.append("; ".join(f"{one.task}: {e}" if task else str(e) for one, e in why.items()))
        undefined.append(bool(why) and all(isinstance(e, UndefinedMetric) for e in why.values()))
    scores["skipped"] = ("sequence", np.array(words, dtype=str))
    scores["skipped"].attrs["long_name"] = "why the sequence has no value"
    scores["undefined"] = ("sequence", undefined)
    scores["undefined"].attrs["long_name"] = "whether the metric has no value on the sequence"
    scores["n_frames"].attrs["long_name"] = "frames scored"
    return scores


def lacking(protocol: Protocol, scores: xr.Dataset) -> str:
    """Say what the scores of sequences lack of a protocol's number; empty where nothing."""
    names = [str(name) for name in scores["sequence"].values]
    counts = scores["n_frames"].fillna(0).astype(int).values.tolist()
    undefined = [name for name, flag in zip(names, scores["undefined"].values, strict=True) if flag]
    return shortfall(protocol, dict(zip(names, counts, strict=True)), undefined)


def _attributes(
    given: str | Protocol,
    scored: list[Protocol],
    left_out: list[str],
    trees: Mapping[str, xr.DataTree],
    scores: xr.Dataset,
) -> dict[str, Any]:
    asked = given if isinstance(given, str) else given.id
    valid = int((scores["skipped"] == "").sum())
    had = {canonical_sequence(one.dataset, name) for one in scored for name in trees}
    missing = [name for one in scored for name in one.sequences if name not in had]
    runs = [provenance(tree) for tree in trees.values()]
    needed = sequences_needed(LEVEL)
    verdict = (
        f"{TOO_FEW}: {valid} scored, an interval at {LEVEL:.0%} needs {needed}"
        if valid < needed
        else f"{valid} sequences scored"
    )
    incomplete = "; ".join(filter(None, (lacking(one, scores) for one in scored)))
    return {
        "protocol": asked,
        "protocols": json.dumps([one.to_dict() for one in scored]),
        "protocol_digests": ", ".join(one.digest for one in scored),
        "not_scored": "; ".join(left_out),
        "n_sequences": len(trees),
        "n_valid": valid,
        "missing": ", ".join(dict.fromkeys(missing)),
        "incomplete": incomplete,
        "verdict": f"{incomplete}; {verdict}" if incomplete else verdict,
        "runs": json.dumps(runs),
        "runs_sha256": hashlib.sha256(json.dumps(runs, sort_keys=True).encode()).hexdigest(),
    }
