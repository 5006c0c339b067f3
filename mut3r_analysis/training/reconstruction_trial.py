"""The reconstruction test: whether a model has learned poses and depth, beside what knows nothing.

It is declared in a protocol file, written before the model it judges was trained. Where the motion
test asks what motion costs, this one asks for go or no-go alone.
"""

from collections.abc import Mapping
from typing import Any

from mut3r_analysis.backbones.protocol import Backbone
from mut3r_analysis.scenes import SceneDistribution
from mut3r_analysis.training.declared import METRICS, bootstrap_draws, ratio_interval, target_row
from mut3r_analysis.training.validation import SHORTEST_PATH, held_out_clips, score_clips


def reconstruction_test(
    model: Backbone, reference: Backbone, protocol: Mapping[str, Any], *, clips: int | None = None
) -> dict[str, Any]:
    """Measure a model and its reference as a protocol says.

    Parameters
    ----------
    model, reference : Backbone
    protocol : mapping
        From :func:`~mut3r_analysis.training.declared.read_protocol`.
    clips : int, optional
        Clips per number where not the protocol's: a look, no measurement.

    Returns
    -------
    dict
        ``names``, ``clips``; by clip length ``baseline``, the model's errors over the baselines',
        and ``reference``, the same errors over the reference's, means over clips in both; and
        ``conditions``, one row each. Triples are [value, low, high].
    """
    count = clips or protocol["clips"]
    distribution, draws = SceneDistribution.from_dict(protocol["scenes"]), bootstrap_draws(count)
    found: dict[str, Any] = {
        "names": [protocol["model"], protocol["reference"]],
        "clips": count,
        "baseline": {},
        "reference": {},
    }
    for length, seed in protocol["seeds"].items():
        scenes = held_out_clips(distribution, tuple(protocol["size"]), count, length, seed=seed)
        names = [name for name in METRICS if name != "ate" or length >= SHORTEST_PATH]
        own, other = (score_clips(each, scenes) for each in (model, reference))
        intervals = own.intervals()
        found["baseline"][str(length)] = {name: intervals[f"{name}_ratio"] for name in names}
        found["reference"][str(length)] = {
            name: ratio_interval(own.errors[name], other.errors[name], draws) for name in names
        }
    found["conditions"] = [
        target_row(
            f"{METRICS[name]} over the baseline's, T = {length}: upper end below {bound:g}",
            found["baseline"][str(length)][name],
            bound,
            found["baseline"][str(length)][name][2] < bound,
        )
        for length, bounds in protocol["conditions"].items()
        for name, bound in bounds.items()
    ]
    return found
