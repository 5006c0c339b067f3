"""The catalogue of protocols that the literature on streaming reconstruction runs."""

from collections.abc import Iterator
from dataclasses import replace
from difflib import SequenceMatcher
from fnmatch import fnmatchcase

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.metrics.alignment import ALIGNMENTS, irreproducible
from mut3r_analysis.metrics.listing import Protocols
from mut3r_analysis.metrics.protocols import FLOW_FRAMES, FrameSelection, Protocol
from mut3r_analysis.metrics.reconstruction import MEASURES

SINTEL_23 = (
    "alley_1", "alley_2", "ambush_2", "ambush_4", "ambush_5", "ambush_6", "ambush_7", "bamboo_1",
    "bamboo_2", "bandage_1", "bandage_2", "cave_2", "cave_4", "market_2", "market_5", "market_6",
    "mountain_1", "shaman_2", "shaman_3", "sleeping_1", "sleeping_2", "temple_2", "temple_3",
)  # fmt: skip
SINTEL_14 = (
    "alley_2", "ambush_4", "ambush_5", "ambush_6", "cave_2", "cave_4", "market_2", "market_5",
    "market_6", "shaman_3", "sleeping_1", "sleeping_2", "temple_2", "temple_3",
)  # fmt: skip
_SINTEL_SHORT = {"ambush_2": 21, "ambush_4": 33, "ambush_6": 20, "market_6": 40}
"""Frames of the training sequences that have fewer than 50."""

BONN_5 = ("balloon2", "crowd2", "crowd3", "person_tracking2", "synchronous")
KITTI_13 = (
    *(f"2011_09_26_drive_{n:04d}" for n in (2, 5, 13, 20, 23, 36, 79, 95, 113)),
    "2011_09_28_drive_0037", "2011_09_29_drive_0026", "2011_09_30_drive_0016",
    "2011_10_03_drive_0047",
)  # fmt: skip
TUM_8 = tuple(
    f"freiburg3_{who}_{motion}"
    for who in ("sitting", "walking")
    for motion in ("static", "xyz", "halfsphere", "rpy")
)
SCANNET_100 = tuple(f"scene{n:04d}_00" for n in range(707, 807))
SEVEN_SCENES_18 = tuple(
    f"{scene}_seq-{number:02d}"
    for scene, numbers in (
        ("chess", (3, 5)), ("fire", (3, 4)), ("heads", (1,)), ("office", (2, 6, 7, 9)),
        ("pumpkin", (1, 7)), ("redkitchen", (3, 4, 6, 12, 14)), ("stairs", (1, 4)),
    )
    for number in numbers
)  # fmt: skip
DAVIS_16 = (
    "blackswan", "bmx-trees", "breakdance", "camel", "car-roundabout", "car-shadow", "cows",
    "dance-twirl", "dog", "drift-chicane", "drift-straight", "goat", "horsejump-high", "kite-surf",
    "libby", "motocross-jump", "paragliding-launch", "parkour", "scooter-black", "soapbox",
)  # fmt: skip
DAVIS_17 = tuple(
    sorted(
        (
            *DAVIS_16, "bike-packing", "dogs-jump", "gold-fish", "india", "judo", "lab-coat",
            "loading", "mbike-trick", "pigs", "shooting",
        )
    )
)  # fmt: skip

RELEASED_ALIGNMENTS = {
    "metric": "metric", "scale_irls": "scale", "scale_shift_adam": "scale&shift",
}  # fmt: skip
"""Alignments of the released depth scorer, and what its ``--align`` calls each."""
_NOTES = {
    "scale_irls": "The released fit does not reproduce itself: on rendered depth with noise the "
    f"order of pixels alone moves AbsRel by up to {irreproducible('scale_irls', 'abs_rel'):.1%} "
    f"and δ < 1.25 by up to {irreproducible('scale_irls', 'delta_1'):.1%}, and smaller differences "
    "are none. scale_lad is the exact optimum of the same loss.",
    "scale_shift_adam": "On small inputs the released loss stops early in float32; here it is "
    "float64.",
}
LONG_DEPTH = tuple(range(50, 501, 50))
LONG_POSE = (50, 90, 100, 150, *range(200, 1001, 100))

# What the sources report: a row that is added to a table of metrics changes no protocol.
_DEPTH = ("abs_rel", "sq_rel", "rmse", "log_rmse", "delta_1", "delta_2", "delta_3")
_MONO = ("abs_rel", "sq_rel", "delta_1", "delta_2", "delta_3")
_TEMPORAL = ("tae", "tae_all", "tae_self")
_POSE = ("ate", "rpe_translation", "rpe_rotation")
_MULTIVIEW = tuple(
    f"{name}_{pooled}"
    for pooled in ("mean", "median")
    for name in ("accuracy", "completion", "normal_consistency")
)
_TRACKS = ("track_error", "track_within_5cm", "track_within_10cm", "scene_flow_error")
_MASKS = ("region_mean", "region_recall", "boundary_mean", "boundary_recall")
_CLOUD = tuple(f"{m}_{s}" for m in MEASURES for s in ("mean", "median"))

_CUT3R = "CUT3R released evaluation (commit 8bc15dc, 2025-08-27)"
_MONST3R = "MonST3R released evaluation (commit 574cc77, 2025-06-16)"
_SPANN3R = "Spann3R released evaluation (commit f89d6a2)"
_TTT3R = "TTT3R released preparation and evaluation (commit cc6142b, 2025-10-01)"
_EASI3R = "Easi3R released evaluation (commit 146a77d, 2025-04-01)"
_SHAPE = "Shape of Motion released evaluation (commit 697d462, 2024-08-13)"
_SEEN = (
    "A point map says where what a pixel shows is, not where a point has gone: pixels that show "
    "the same point are given by the truth, and neither finding them nor hidden points are scored."
)
_CUT = (
    "A run without masks gives those its cue ends in, or its motion score, bilinear between "
    "patches and cut by one of Otsu's thresholds for all frames of the sequence."
)
_SINGLE = (
    "Every frame is predicted by itself and has a fit of its own; frames weigh by their valid "
    "pixels. Root mean squares are left out: the released code averages those of frames."
)
_MONO_SCRIPT = "monodepth/eval_metrics.py --eval_dataset"
_TAE = "after the definition in the paper of Video Depth Anything; its code was not at hand"
_CARRIED = (
    "Depth is carried to the nearest pixel of the next frame, the nearest depth wins, and back; "
    "pixels whose true depth misses by more than 5 % are hidden or move, and count in tae_all "
    "alone; tae_self carries by the predicted cameras. Published values are times 100."
)
_ASSOCIATED = "rgb frames with a ground-truth pose within 0.02 s"


def _video_depth() -> Iterator[Protocol]:
    sintel = Protocol(
        id="video-depth:sintel23", task="video-depth", dataset="sintel", sequences=SINTEL_23,
        frames=FrameSelection(), preparation="resize", align="metric", reduction="valid-pixels",
        metrics=_DEPTH, source=_CUT3R, maximum=70.0, clip=70.0, expected_sequences=23,
        expected_frames=1064, lengths=_of_sintel(SINTEL_23),
        note="Final pass. Predictions are resized to the truth's size, bicubic.",
    )  # fmt: skip
    bases = [
        sintel,
        replace(
            sintel, id="video-depth:sintel14", sequences=SINTEL_14, expected_sequences=14,
            expected_frames=643, lengths=_of_sintel(SINTEL_14),
            note="The list of the pose protocol; not the one behind published depth tables, which "
            "use all 23 sequences.",
        ),
        replace(
            sintel, id="video-depth:bonn5", dataset="bonn", sequences=BONN_5, clip=None,
            frames=FrameSelection("sorted files", start=30, limit=110), expected_sequences=5,
            expected_frames=550, lengths=(),
            note="Depth and rgb files are paired by their sorted order.",
        ),
        replace(
            sintel, id="video-depth:kitti13", dataset="kitti", sequences=KITTI_13, clip=None,
            maximum=None, frames=FrameSelection("frames with depth ground truth", limit=110),
            expected_sequences=13, expected_frames=None, lengths=(),
            note="110 is a cap; several drives are shorter.",
        ),
    ]  # fmt: skip
    for base in bases:
        for align in ALIGNMENTS:
            words = [base.note, _NOTES.get(align, "")]
            yield replace(
                base, id=f"{base.id}:{align}", align=align, note=" ".join(filter(None, words)),
                released=_depth_flags(base.dataset, align),
            )  # fmt: skip
    for base in bases[2:]:
        for limit in LONG_DEPTH:
            frames = replace(base.frames, limit=limit)
            for align in RELEASED_ALIGNMENTS:
                yield replace(
                    base, id=f"{base.id}-{limit}:{align}", align=align, frames=frames,
                    expected_frames=None, source=_TTT3R,
                    released=_depth_flags(f"{base.dataset}_s1_{limit}", align),
                )  # fmt: skip


def _mono_depth() -> Iterator[Protocol]:
    for name in ("sintel23", "bonn5", "kitti13"):
        base = next(p for p in _video_depth() if p.id == f"video-depth:{name}:scale_median")
        yield replace(
            base, id=f"mono-depth:{name}:scale_median", task="mono-depth", metrics=_MONO,
            note=f"{_SINGLE} {base.note}", released=f"{_MONO_SCRIPT} {base.dataset}",
        )  # fmt: skip
    yield replace(
        base, id="mono-depth:nyu:scale_median", dataset="nyu", task="mono-depth", metrics=_MONO,
        sequences=("val",), frames=FrameSelection(), expected_sequences=1, expected_frames=654,
        lengths=(654,), note=_SINGLE, released=f"{_MONO_SCRIPT} nyu",
    )  # fmt: skip


def _of_sintel(names: tuple[str, ...]) -> tuple[int, ...]:
    return tuple(_SINTEL_SHORT.get(name, 50) for name in names)


def _depth_flags(data: str, align: str) -> str:
    released = RELEASED_ALIGNMENTS.get(align)
    return f"eval_depth.py --eval_dataset {data} --align '{released}'" if released else ""


def _temporal() -> Iterator[Protocol]:
    for align in ("metric", "scale_irls", "scale_shift_lstsq"):
        yield Protocol(
            id=f"temporal-depth:sintel23:{align}", task="temporal-depth", dataset="sintel",
            sequences=SINTEL_23, frames=FrameSelection(), preparation="resize", align=align,
            reduction="sequence-mean", metrics=_TEMPORAL, source=_TAE, maximum=70.0, clip=70.0,
            expected_sequences=23, expected_frames=1064, lengths=_of_sintel(SINTEL_23),
            note=_CARRIED,
        )  # fmt: skip


def _pose() -> Iterator[Protocol]:
    sintel = Protocol(
        id="pose:sintel14:sim3", task="pose", dataset="sintel", sequences=SINTEL_14,
        frames=FrameSelection(), preparation="crop", align="sim3", reduction="sequence-mean",
        metrics=_POSE, source=_CUT3R, rpe_delta=1, expected_sequences=14,
        expected_frames=643, lengths=_of_sintel(SINTEL_14), released=_pose_flags("sintel"),
        note="Final pass. A few sequences (cave_2, temple_3) dominate the mean.",
    )  # fmt: skip
    tum = replace(
        sintel, id="pose:tum8-stride3-90:sim3", dataset="tum", sequences=TUM_8,
        frames=FrameSelection(_ASSOCIATED, step=3, limit=90), expected_sequences=8,
        expected_frames=720, lengths=(), released=_pose_flags("tum"), note="",
    )  # fmt: skip
    scannet = replace(
        tum, id="pose:scannet100-stride3-90:sim3", dataset="scannet", sequences=SCANNET_100,
        frames=FrameSelection(step=3, limit=90), expected_sequences=100, expected_frames=9000,
        released=_pose_flags("scannet"),
        note="Scenes whose true poses hold infinity are skipped by the released code.",
    )  # fmt: skip
    yield from (sintel, tum, scannet)
    for base, name in (
        (sintel, "sintel14"),
        (tum, "tum8-stride3-90"),
        (scannet, "scannet100-stride3-90"),
    ):
        yield replace(
            base, id=f"pose:{name}-224:sim3", input_size=224,
            released=base.released.replace("--size 512", "--size 224"),
        )  # fmt: skip
    for limit in LONG_POSE:
        for base, step, name in ((tum, 1, "tum8-stride1"), (scannet, 3, "scannet100-stride3")):
            if (step, limit) != (3, 90):
                yield replace(
                    base, id=f"pose:{name}-{limit}:sim3", expected_frames=None, source=_TTT3R,
                    released=_pose_flags(f"{base.dataset}_s{step}_{limit}"),
                    frames=replace(
                        base.frames, step=step, limit=limit, whole_steps=base is scannet
                    ),
                )  # fmt: skip
    for dataset, step, sequences, among in (
        ("dycheck", 10, (), "train frames"),
        ("adt", 5, (), "all frames"),
        ("tum", 30, TUM_8, _ASSOCIATED),
    ):
        yield replace(
            tum, id=f"pose:{dataset}{len(sequences) or ''}-stride{step}:sim3", dataset=dataset,
            sequences=sequences, frames=FrameSelection(among, step=step), source=_EASI3R,
            expected_sequences=len(sequences) or None, expected_frames=None, released="",
            note="Whole sequences at this stride; not comparable with 90-frame numbers."
            + (" There is no loader of ADT: evaluate imported predictions." * (dataset == "adt")),
        )  # fmt: skip


def _pose_flags(data: str) -> str:
    return f"relpose/launch.py --eval_dataset {data} --size 512"


def _reconstruction() -> Iterator[Protocol]:
    yield Protocol(
        id="reconstruction:dycheck-stride10:sim3", task="reconstruction", dataset="dycheck",
        sequences=(), frames=FrameSelection("train frames", step=10), preparation="crop",
        align="sim3", reduction="sequence-mean", metrics=_CLOUD, source=_EASI3R,
        note="The truth is Depth Anything aligned to COLMAP with refined cameras, not LiDAR, and "
        "its units are not stated to be metres. Distance is between points of the same pixel; "
        "accuracy and completion cannot exceed it, which published tables violate. A median is a "
        "mean over scenes of medians. The released code takes COLMAP's principal points as they "
        "are; here pixel centres are integers, half a pixel from there.",
    )  # fmt: skip


def _tracks() -> Iterator[Protocol]:
    yield Protocol(
        id="tracks:dycheck-keypoints:sim3", task="tracks", dataset="dycheck", sequences=(),
        frames=FrameSelection("train frames"), preparation="crop", align="sim3",
        reduction="sequence-mean", metrics=_TRACKS, source=_SHAPE,
        note=f"{_SEEN} Truth is the LiDAR depth at annotated keypoints, metres: open it with "
        "?depth=lidar. Pairs are all frames with keypoints, in both orders and each with itself. "
        "There the path is aligned on the frames with keypoints alone, with the ratio of spreads "
        "as scale, and predicted points are those of a model that tracks; scene flow is not part "
        "of it.",
    )  # fmt: skip


def _multiview() -> Iterator[Protocol]:
    seven = Protocol(
        id="multiview:7scenes18-stride200:median_icp", task="multiview", dataset="sevenscenes",
        sequences=SEVEN_SCENES_18, frames=FrameSelection(step=200), preparation="crop",
        align="median_icp", reduction="sequence-mean", metrics=_MULTIVIEW, source=_CUT3R,
        expected_sequences=18, expected_frames=86,
        lengths=tuple(3 if name.startswith("stairs") else 5 for name in SEVEN_SCENES_18),
        released="mv_recon/launch.py --size 512",
        note="Clouds in the frame of the first camera are brought together by median depth and "
        "median spread over all pixels, then by point-to-point ICP within 0.1 m. Normals are those "
        "of the 30 nearest points. The depth of nearest pixels is taken at pixel centres, which "
        "the released resize does not do.",
    )  # fmt: skip
    nrgbd = replace(
        seven, id="multiview:nrgbd-stride500:median_icp", dataset="nrgbd", sequences=(),
        frames=FrameSelection(step=500, fewest=2), expected_sequences=None, expected_frames=None,
        lengths=(),
    )  # fmt: skip
    first = replace(
        seven, source=_TTT3R, expected_frames=None, lengths=(), metrics=(*_MULTIVIEW, "chamfer")
    )
    long = [
        replace(
            first, id=f"multiview:7scenes18-stride2-{limit}:median_icp",
            frames=FrameSelection(step=2, limit=limit),
            released=f"{seven.released} --max_frames {limit}",
        )
        for limit in range(50, 401, 50)
    ]  # fmt: skip
    small = [
        replace(
            base, id=base.id.replace(":median", "-224:median"), preparation="window",
            input_size=224, released=seven.released.replace("512", "224"),
        )
        for base in (seven, nrgbd)
    ] + [
        replace(
            base, id=f"multiview:{name}-224:median_icp", preparation="cover", input_size=224,
            source=_SPANN3R, frames=FrameSelection(step=step), expected_frames=None, lengths=(),
            metrics=(*_MULTIVIEW, "chamfer"), released="eval.py",
        )
        for base, name, step in ((seven, "7scenes18-stride20", 20), (nrgbd, "nrgbd-stride40", 40))
    ]  # fmt: skip
    for base in (seven, nrgbd, *small, *long):
        yield base
        flag = " --voxel_size 0.01" if base in long else ""
        yield replace(
            base, id=f"{base.id}-1cm", voxel=0.01,
            released=f"{base.released}{flag}" if flag else "",
            note=f"{base.note} Thinned, so its time is bounded; not the published number.",
        )  # fmt: skip


def _motion() -> Iterator[Protocol]:
    davis = Protocol(
        id="motion:davis", task="motion", dataset="davis", sequences=(), frames=FrameSelection(),
        preparation="crop", align="none", reduction="frame-pooled", source=_EASI3R,
        metrics=_MASKS,
        note="Masks at network resolution, all labels merged. The released code counts a missing "
        "prediction as an empty mask; here it is an error. Without refinement by a segmentation "
        f"model. {_CUT}",
    )  # fmt: skip
    sintel = replace(
        davis, id="motion:sintel", dataset="sintel", frames=FrameSelection(FLOW_FRAMES),
        source=f"{_EASI3R}, the metric; {_MONST3R}, the true masks",
        note="Truth: the flow of the camera's motion over true depth differs from the true flow by "
        "more than 0.1 px. The last frame of a sequence has none.",
    )  # fmt: skip
    for base, name, sequences, count in (
        (davis, "davis16", DAVIS_16, 20),
        (davis, "davis17", DAVIS_17, 30),
        (davis, "davis-all", (), 90),
        (sintel, "sintel23", SINTEL_23, 23),
        (sintel, "sintel14", SINTEL_14, 14),
    ):
        for reduction in ("frame-pooled", "sequence-mean"):
            yield replace(
                base, id=f"motion:{name}:{reduction}", sequences=sequences, reduction=reduction,
                expected_sequences=count,
            )  # fmt: skip


def _default() -> Iterator[Protocol]:
    ours = "this package; for procedural scenes and one's own sequences"
    depth = Protocol(
        id="default:depth", task="video-depth", dataset="any", sequences=(),
        frames=FrameSelection(), preparation="given", align="metric", reduction="sequence-mean",
        metrics=_DEPTH, source=ours,
    )  # fmt: skip
    for align in ("scale_median", "metric"):
        yield replace(depth, id=f"default:depth:{align}", align=align)
    for align in ("sim3", "se3"):
        yield replace(
            depth, id=f"default:pose:{align}", task="pose", align=align, metrics=_POSE,
            rpe_delta=1, note="Rigid alignment leaves relative errors as they are."
            if align == "se3" else "",
        )  # fmt: skip
    yield replace(
        depth, id="default:mono-depth:scale_median", task="mono-depth", align="scale_median",
        metrics=_MONO, note=_SINGLE,
    )  # fmt: skip
    yield replace(
        depth, id="default:temporal-depth:scale_median", task="temporal-depth",
        align="scale_median", metrics=_TEMPORAL, note=_CARRIED,
    )  # fmt: skip
    yield replace(
        depth, id="default:multiview:median_icp", task="multiview", align="median_icp",
        metrics=(*_MULTIVIEW, "chamfer"), voxel=0.01,
    )  # fmt: skip
    for align in ("sim3", "sim3_points"):
        yield replace(
            depth, id=f"default:tracks:{align}", task="tracks", align=align,
            metrics=(*_TRACKS, "scene_flow_error_moving"), note=f"{_SEEN} Where flow says what "
            "shows the same point, pairs are neighbouring frames. Aligned by a camera path that is "
            "nearly straight or wrong, points are turned about it by any angle; sim3_points fits "
            "the points themselves.",
        )  # fmt: skip
    yield replace(
        depth, id="default:motion:roc", task="motion", align="none", metrics=("roc_auc",),
        note="The motion score against the true mask, without a threshold.",
    )  # fmt: skip
    yield replace(
        depth, id="default:motion:masks", task="motion", align="none", metrics=_MASKS,
        reduction="frame-pooled", note=_CUT,
    )  # fmt: skip


DEFAULT = ("default:depth:scale_median", "default:pose:sim3")
"""What `evaluate` scores when no protocol is named."""

PROTOCOLS: dict[str, Protocol] = {
    p.id: p
    for group in (
        _default,
        _video_depth,
        _mono_depth,
        _temporal,
        _pose,
        _reconstruction,
        _multiview,
        _tracks,
        _motion,
    )
    for p in group()
}


_SPOKEN = {"depth": "video-depth", "median": "scale_median"} | {
    name: align for align, name in RELEASED_ALIGNMENTS.items()
}
"""Other words for parts of an id: what the released scripts call alignments, and short names."""


def protocol(id: str) -> Protocol:
    """Return the protocol of this id.

    Raises
    ------
    InvalidArgument
        No such id; the message says which one is likely meant.

    Examples
    --------
    >>> protocol("pose:sintel14:sim3").metrics
    ('ate', 'rpe_translation', 'rpe_rotation')
    """
    if id in PROTOCOLS:
        return PROTOCOLS[id]
    near = sorted(PROTOCOLS, key=lambda known: -_likeness(id, known))[:4]
    raise InvalidArgument(
        f"no protocol {id!r}; did you mean {near[0]}? Near ones: {', '.join(near[1:])}; "
        f"mut3r protocols and list_protocols() list all {len(PROTOCOLS)}"
    )


def _likeness(given: str, known: str) -> float:
    """Say how much of what is given stands in an id, part by part."""
    parts = [_SPOKEN.get(part, part) for part in given.split(":") if part]
    return sum(max(_part_likeness(part, each) for each in known.split(":")) for part in parts)


def _part_likeness(given: str, known: str) -> float:
    if known.startswith(given):
        return 1.0 if known == given else 0.95
    return 0.9 if given in known else 0.8 * SequenceMatcher(None, given, known).ratio()


def list_protocols(pattern: str = "*") -> Protocols:
    """Return the protocols whose id matches a pattern, stands under it or begins so.

    ``"pose:*"`` and ``"pose"`` give all pose protocols, ``"default"`` those for procedural scenes
    and one's own sequences, ``"pose:tum"`` all that begin so, a full id that one.

    Returns
    -------
    Protocols
        A tuple that prints as a table.

    Raises
    ------
    InvalidArgument
        Nothing matches.

    Examples
    --------
    >>> [each.id for each in list_protocols("pose:sintel14")]
    ['pose:sintel14:sim3']
    """
    for fits in (
        lambda id: fnmatchcase(id, pattern) or id.startswith(pattern.rstrip(":") + ":"),
        lambda id: bool(pattern) and id.startswith(pattern),
    ):
        if found := [one for id, one in PROTOCOLS.items() if fits(id)]:
            return Protocols(found)
    return Protocols([protocol(pattern)])
