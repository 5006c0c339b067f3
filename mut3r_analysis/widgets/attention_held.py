"""What the attention explorer can show of runs: sites, frames, tokens, and where rows come from."""

from collections.abc import Iterator
from typing import Any

import xarray as xr

from mut3r_analysis.attention.sites import SITE_KINDS
from mut3r_analysis.attention.statistics import STATISTICS
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.figures.seen import true_motion
from mut3r_analysis.foundation.fields import one_of
from mut3r_analysis.widgets.attention_rows import QUANTITIES, AttentionRows, stream_grid


def describe(first: xr.DataTree, all_rows: dict[str, AttentionRows]) -> dict[str, Any]:
    """Say what a page can ask of runs that are shown together, of which one is the first.

    Raises
    ------
    InvalidArgument
        When the runs have no site or no frame in common, or other tokens at one.
    """
    rows = next(iter(all_rows.values()))
    sites, streams = [], {}
    for name in _common_sites(all_rows):
        kind = SITE_KINDS[name]
        offers = [each.offers[name] for each in all_rows.values()]
        for side, stream in (("query", kind.queries), ("key", kind.keys)):
            down, across, count = stream_grid(rows.sites[name], side)
            pose = count == down * across + 1
            streams[stream] = {"rows": down, "columns": across, "pose": pose, "count": count}
        sites.append(
            {
                "name": name,
                "queries": kind.queries,
                "keys": kind.keys,
                "layers": list(_shared([offer.layers for offer in offers])),
                "heads": ["mean", *_shared([offer.heads for offer in offers])],
                "head_count": len(offers[0].heads),
                "rows": all(offer.rows for offer in offers),
                "origins": [offer.origin for offer in offers],
                "statistics": [
                    {"name": item, "side": STATISTICS[item].side, "label": _label(item)}
                    for item in _shared([offer.statistics for offer in offers])
                ],
            }
        )
    frames = _shared([tuple(each.frames) for each in all_rows.values()])
    patch = first.attrs["backbone"]["config"]["patch_size"]
    grid = streams.get("image") or streams.get("patches") or {"rows": 3, "columns": 4}
    return {
        "frames": list(frames),
        "sites": sites,
        "streams": streams,
        "quantities": QUANTITIES,
        "image": {"height": grid["rows"] * patch, "width": grid["columns"] * patch},
        "has_truth": true_motion(first, frames[0]) is not None,
    }


def narrowed(held: dict[str, Any], chosen: dict[str, Any]) -> dict[str, Any]:
    """Describe a page that holds only what was chosen."""
    for frame in chosen["frames"]:
        one_of("frame", frame, held["frames"])
    for name in chosen["sites"]:
        one_of("site", name, [each["name"] for each in held["sites"]])
    sites = []
    for site in held["sites"]:
        if site["name"] not in chosen["sites"]:
            continue
        layers = site["layers"] if chosen["layers"] is None else chosen["layers"]
        for layer in layers:
            one_of("layer", layer, site["layers"])
        heads = site["heads"] if chosen["heads"] is None else chosen["heads"]
        for head in heads:
            one_of("head", head, site["heads"])
        sites.append(site | {"layers": layers, "heads": heads})
    return held | {"frames": chosen["frames"], "sites": sites}


def page_requests(held: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Give everything that can be asked of what is held: frames, statistics, rows of all tokens."""
    for frame in held["frames"]:
        yield {"ask": "frame", "frame": frame}
        for site in held["sites"]:
            for layer in site["layers"]:
                where = {"site": site["name"], "frame": frame, "layer": layer}
                yield from _site_requests(site, held["streams"], where | {"heads": site["heads"]})


def page_bytes(held: dict[str, Any]) -> int:
    """Count the bytes of the rows that a page of all this would hold."""
    total = 0
    for site in held["sites"]:
        queries, keys = (held["streams"][site[side]]["count"] for side in ("queries", "keys"))
        maps = 2 * len(QUANTITIES) * queries * keys if site["rows"] else 0
        total += len(held["frames"]) * len(site["layers"]) * len(site["heads"]) * maps
    return 4 * len(held["runs"]) * total


def _site_requests(
    site: dict[str, Any], streams: dict[str, Any], where: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    for item in site["statistics"]:
        yield {"ask": "statistic", **where, "show": item["name"]}
    if not site["rows"]:
        return
    for show in QUANTITIES:
        for side, stream in (("query", site["queries"]), ("key", site["keys"])):
            for token in range(streams[stream]["count"]):
                yield {"ask": "row", **where, "side": side, "token": token, "show": show}


def offered(site: dict[str, Any]) -> list[str]:
    """Return what can be shown at a site: quantities of rows, and statistics."""
    return [*(QUANTITIES if site["rows"] else ()), *(item["name"] for item in site["statistics"])]


def _label(statistic: str) -> str:
    item = STATISTICS[statistic]
    units = {"nat2": "nat²", "1": ""}.get(item.units, item.units)
    return f"{item.long_name} ({units})" if units else item.long_name


def _shared(given: list[tuple[Any, ...]]) -> tuple[Any, ...]:
    """Return what all have, in the order of the first."""
    return tuple(each for each in given[0] if all(each in others for others in given[1:]))


def _common_sites(rows: dict[str, AttentionRows]) -> list[str]:
    """Kinds of sites that all runs have with the same tokens, in the order of the catalogue."""
    captured = _shared([tuple(each.sites) for each in rows.values()])
    names = [name for name in SITE_KINDS if name in captured]
    for name in names:
        for side in ("query", "key"):
            grids = {run: stream_grid(each.sites[name], side) for run, each in rows.items()}
            if len(set(grids.values())) > 1:
                raise InvalidArgument(
                    f"runs are compared token by token, but {name} has other {side} tokens in "
                    f"each (rows, columns, number): {grids}; use the same backbone size"
                )
    frames = _shared([tuple(each.frames) for each in rows.values()])
    if not names or not frames:
        raise InvalidArgument(
            "the runs have no kind of site or no frame in common: "
            + "; ".join(
                f"{run}: {', '.join(each.sites)}, {len(each.frames)} frames"
                for run, each in rows.items()
            )
        )
    return names
