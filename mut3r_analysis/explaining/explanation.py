"""What made a number worse: found by the error that was scored, and checked by switching it off."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import xarray as xr

from mut3r_analysis.attention.seam import Observer
from mut3r_analysis.backbones.protocol import Backbone
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.evaluation.harm import DIFFERENCE, patch_harm
from mut3r_analysis.evaluation.runs import Run, opened_run
from mut3r_analysis.explaining.measuring import difference_measure, error_measure, source_truth
from mut3r_analysis.explaining.signatures import Case, signatures
from mut3r_analysis.explaining.trial import Trial
from mut3r_analysis.metrics.protocols import Protocol
from mut3r_analysis.motion.patch import Patching
from mut3r_analysis.running.source_of_run import sequence_of

LEAST = 0.01
"""Share of the plain run's mean error by which a frame's error has to rise to be called worse."""


def explain(
    plain: Run | Mapping[str, Run],
    gated: Run | None = None,
    sequence: xr.Dataset | str | Path | None = None,
    *,
    protocol: str | Protocol = "default",
    backbone: Backbone | str | Path | None = None,
    intervene: Observer | Patching | None = None,
    budget: int = 96,
    least: float = LEAST,
) -> xr.Dataset:
    """Find the frame, the patch, the site, the layer and the head that a worse number comes from.

    Frames and patches are ranked by the error that was scored, aligned as it was. The treatment is
    then switched off frame by frame, site by site, layer by layer, head by head and patch by patch,
    and what counts is the share of the harm that goes with it.

    Parameters
    ----------
    plain, gated : DataTree, str or Path
        Two runs of one sequence, or their stores: without and with the treatment. Both may be
        gated. Instead of them a mapping of their two names to them, in this order.
    sequence : Dataset, str or Path, optional
        The sequence that was run, with the frames that were run; by default it is opened where the
        run says it was.
    protocol : str or Protocol
        Under which the number is worse; its first error metric counts, depth before poses.
    backbone : Backbone, str or Path, optional
        That of the runs; by default it is loaded by the name that they have for it.
    intervene : callable or Patching, optional
        That of the gated run, where it had one. A callable is run again as often as `budget` says,
        always from the first frame to the last, and shown several runs at once.
    budget : int
        At most so many runs are run again, in batches; 0 checks nothing.
    least : float
        By which share of the plain run's mean error a frame must be worse to be worth a cause.

    Returns
    -------
    Dataset
        - ``frame_harm`` (frame) and ``patch_harm`` (frame, patch_row, patch_col): the error of the
          gated run minus that of the plain one; without truth how far the runs differ;
        - ``undone`` (), ``frame_undone`` (frame), ``site_undone`` (site), ``layer_undone`` (site,
          layer), ``head_undone`` (site, layer, head), ``patch_undone`` (patch_row, patch_col):
          share of the worst frame's harm that goes when the treatment is switched off there, for a
          patch in what it reads in the frame and head that were found; NaN where that was not
          tried. ``undone`` is of the intervention as a whole;
        - ``reads``, ``writes`` (site, layer, head): change of attention at the worst patch, from
          :func:`~mut3r_analysis.motion.attention_change`, captured in two runs more;
        - ``signature_shown``, ``signature_evidence`` (signature): whether the runs have the
          signature of a known failure, and the numbers that say so.

        Attributes: ``answer``, a sentence; ``frame``, ``patch_row``, ``patch_col``, ``site``,
        ``layer``, ``head`` as far as they were found; ``metric``, ``checked`` (how often it was run
        again) and ``not_checked``, why something was not.

    Raises
    ------
    InvalidArgument
        For runs of different sequences, or a backbone or sequence that is not theirs.

    Notes
    -----
    Where both runs are gated and nothing intervenes, the difference of the gates cannot be
    switched off site by site; causes are then ranked by the change of attention alone. Nor is a
    difference of commits. The frame where harm begins is not tried for a model that looks ahead.

    Examples
    --------
    >>> found = explain({"plain": run, "gated": gated}, sequence=sequence, budget=0)
    >>> found["frame_harm"].dims, found["patch_harm"].dims
    (('frame',), ('frame', 'patch_row', 'patch_col'))
    >>> print(found.attrs["answer"])
    depth AbsRel (median scale) rises most in frame ...
    """
    plain, gated = _two_runs(plain, gated)
    sequence = sequence_of(plain, sequence)
    if plain.attrs["sequence"] != gated.attrs["sequence"]:
        raise InvalidArgument("the runs are of different sequences or frames; give two of one")
    scored = error_measure(protocol, sequence, (plain, gated)) or difference_measure(plain)
    metric, measure = scored
    before, after = measure(plain), measure(gated)
    found = xr.Dataset({"frame_harm": after - before})
    found["patch_harm"] = patch_harm(plain, gated, protocol, truth=source_truth(protocol, sequence))
    found.attrs = {"metric": metric, "checked": 0, "not_checked": ""}
    harm, floor = found["frame_harm"], least * float(before.mean())
    if metric == DIFFERENCE and not float(harm.max()) > 0:
        return found.assign_attrs(answer="The runs do not differ.")
    worst = int(harm["frame"][int(harm.argmax("frame"))])
    got_worse = float(harm.max()) > floor
    trial = Trial(found, plain, gated, backbone, sequence, intervene, budget, measure, worst)
    if got_worse:
        trial.find_frame()
        trial.find_site()
        trial.find_patch()
        trial.find_attention()
    case = Case(
        plain, gated, sequence, protocol, measure, worst if got_worse else None, trial.again,
        trial.looked,
    )  # fmt: skip
    found = found.merge(signatures(case), combine_attrs="override")
    text = _answer(found, worst) if got_worse else _nothing(metric, harm, worst)
    return found.assign_attrs(answer=text + _signs(found))


def _two_runs(plain: Any, gated: Any) -> tuple[xr.DataTree, xr.DataTree]:
    if isinstance(plain, Mapping) and not isinstance(plain, xr.DataTree):
        if gated is not None or len(plain) != 2:
            raise InvalidArgument(
                "explain compares two runs: give them as explain(plain, gated, sequence), or as "
                "explain({'plain': run, 'gated': other}, sequence=sequence)"
            )
        plain, gated = plain.values()
    return opened_run(plain), opened_run(gated)


def _nothing(metric: str, harm: xr.DataArray, worst: int) -> str:
    return (
        f"Nothing got worse: by {metric}, no frame rises by enough to look for a cause (the most, "
        f"{float(harm.max()):+.3g}, is in frame {worst}; the mean over frames changes by "
        f"{float(harm.mean()):+.3g})."
    )


def _signs(found: xr.Dataset) -> str:
    shown = found["signature_evidence"].values[found["signature_shown"].values]
    names = found["signature"].values[found["signature_shown"].values]
    return "".join(f" Sign of {name}: {text}." for name, text in zip(names, shown, strict=True))


def _answer(found: xr.Dataset, worst: int) -> str:
    about = found.attrs
    harm = float(found["frame_harm"].sel(frame=worst))
    patch = f"patch ({about['patch_row']}, {about['patch_col']})"
    if about["metric"] == DIFFERENCE:
        text = f"No ground truth: the runs differ most in frame {worst}, by {harm:.3g} % of depth"
    else:
        text = f"{about['metric']} rises most in frame {worst}, by {harm:.3g}"
    if about["frame"] != worst:
        text += f"; the change begins in frame {about['frame']}"
    text += f", most at {patch}."
    where = [("site", ""), ("layer", "layer "), ("head", "head ")]
    named = [f"{word}{about[name]}" for name, word in where if name in about]
    if named:
        last = where[len(named) - 1][0]
        share = float(found[f"{last}_undone"].max())
        text += f" Without {', '.join(named)}, {share:.0%} of that goes."
    else:
        top = found["writes"].stack(cell=("site", "layer", "head")).idxmax("cell").item()
        text += f" What is written changed most at {top[0]}, layer {top[1]}, head {top[2]}."
    return text + (f" Not checked: {about['not_checked']}." if about["not_checked"] else "")
