"""Whatever a parser is given, it answers with a value or with one error of this package."""

import os
import random
import struct
import warnings

import av
import numpy as np
import pytest
import yaml
from hypothesis import given, note, settings
from hypothesis import strategies as st
from PIL import Image

from mut3r_analysis.attention import Capture
from mut3r_analysis.backbones.constructor_string import parse_constructor
from mut3r_analysis.errors import Mut3rError
from mut3r_analysis.evaluation import import_predictions
from mut3r_analysis.evaluation.folders import _load_camera
from mut3r_analysis.foundation.bundled import data_path
from mut3r_analysis.foundation.calls import parse_call
from mut3r_analysis.foundation.text_files import parse_json, read_yaml
from mut3r_analysis.metrics import read_trajectory
from mut3r_analysis.metrics.trajectory_files import detect_order
from mut3r_analysis.motion import Cue, Gate, PairCue, PairGate
from mut3r_analysis.running import pair_edges
from mut3r_analysis.running.commit import Commit
from mut3r_analysis.scenes import Scene
from mut3r_analysis.scenes.bundled import open_scene
from mut3r_analysis.sequences import open_sequence
from mut3r_analysis.sequences.frames import Selection
from mut3r_analysis.sequences.images import natural_key
from mut3r_analysis.sequences.layouts import dycheck, formats
from mut3r_analysis.sequences.layouts.colmap import read_sparse
from mut3r_analysis.sequences.layouts.kitti import _read_calibration
from mut3r_analysis.sequences.layouts.location import parse_location
from mut3r_analysis.sequences.layouts.nrgbd import read_poses as read_opengl_poses
from mut3r_analysis.sequences.layouts.stamps import read_poses, read_stamped
from mut3r_analysis.sequences.prefixes import find_opener, split_prefix
from mut3r_analysis.sweeps.specification import read_specification
from mut3r_analysis.training.declared import read_protocol
from mut3r_analysis.training.recipe import read_recipe

CASES = int(os.environ.get("FUZZ_CASES", "50"))


def image_bytes(folder, suffix, mode="L", **options):
    path = folder / f"seed{suffix}"
    Image.new(mode, (6, 5), 1).save(path, **options)
    return path.read_bytes()


def animation_bytes(folder, suffix):
    frames = [Image.new("RGB", (6, 5), color) for color in ("red", "blue", "green")]
    path = folder / f"several{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:])
    return path.read_bytes()


def array_bytes(folder, **arrays):
    path = folder / ("seed.npz" if len(arrays) > 1 else "seed.npy")
    if len(arrays) > 1:
        np.savez(path, **arrays)
    else:
        np.save(path, *arrays.values())
    return path.read_bytes()


def tagged(channels):
    return struct.pack(f"<fii{6 * channels}f", 202021.25, 3, 2, *[1.0] * 6 * channels)


def frames_of(path):
    open_sequence(path.parent).image.load()


def in_place(folder, name):
    """Read what is in a file as the only one of a folder of predictions."""
    return lambda path: import_predictions(path.parent, folder, quaternion="xyzw")


POSES = b"# stamp tx ty tz qx qy qz qw\n" + b"".join(
    b"%d.5 1 2 %d 0 0 0.6 0.8\n" % (i, i) for i in range(4)
)
COLMAP_CAMERAS = struct.pack("<QiiQQ4d", 1, 7, 1, 64, 48, 50, 50, 32, 24)
COLMAP_IMAGES = struct.pack("<Qi7di", 1, 1, 1, 0, 0, 0, 1, 2, 3, 7) + b"a.png\0" + bytes(8)
CAMERA = struct.pack("<f21d", 202021.25, *np.eye(3).ravel(), *np.eye(3, 4).ravel())
SWEEP = b"backbone: tiny\nsequences: [a]\ngate: {beta: 1e-1}\ngrid: {gate.beta: [1, 2]}\n"


def video_bytes(folder, suffix):
    path = folder / f"seed{suffix}"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 16, 16, "yuv420p"
        for value in (10, 90, 170):
            frame = av.VideoFrame.from_ndarray(np.full((16, 16, 3), value, np.uint8), "rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path.read_bytes()


def video_of(path):
    sequence = open_sequence(path)
    if sequence.image.nbytes < 1e8:
        sequence.image.load()
    sequence.close()


def sparse(path):
    (path.parent / "cameras.bin").write_bytes(COLMAP_CAMERAS)
    read_sparse(path.parent)


def sparse_cameras(path):
    (path.parent / "images.bin").write_bytes(COLMAP_IMAGES)
    read_sparse(path.parent)


def recipe_bytes(folder):
    return data_path("training", "tiny.yaml").read_bytes()[:3000]


def scene_bytes(folder):
    return data_path("scenes", "slide-01.yaml").read_bytes()


FILES = {
    "yaml": ("a.yaml", read_yaml, SWEEP),
    "sweep": ("a.yaml", read_specification, SWEEP),
    "recipe": ("a.yaml", read_recipe, recipe_bytes),
    "scene": ("a.yaml", Scene.from_yaml, scene_bytes),
    "protocol": ("a.yaml", read_protocol, b"model: a\nreference: b\n"),
    "trajectory": ("a.txt", read_trajectory, POSES),
    "order": ("a.txt", detect_order, POSES),
    "poses": ("a.txt", read_poses, POSES),
    "opengl poses": ("a.txt", read_opengl_poses, b"1 0 0 2\n0 1 0 3\n0 0 1 4\n0 0 0 1\n"),
    "list": ("rgb.txt", lambda path: read_stamped(path, 1), b"1.5 rgb/1.5.png\n2.5 b.png\n"),
    "numbers": ("a.txt", lambda path: formats.read_numbers(path, (2, 2)), b"1 0\n0 1e-3\n"),
    "calibration": ("a.txt", _read_calibration, b"P_rect_02: 1 0 3 0 0 1 4 0 0 0 1 0\n"),
    "dpt": ("a.dpt", formats.read_dpt, tagged(1)),
    "flo": ("a.flo", formats.read_flo, tagged(2)),
    "cam": ("a.cam", formats.read_cam, CAMERA),
    "depth": ("a.png", lambda path: formats.read_depth_png(path, 1000),
              lambda folder: image_bytes(folder, ".png", "I;16")),
    "labels": ("a.png", formats.read_labels, lambda folder: image_bytes(folder, ".png", "P")),
    "mask": ("a.png", formats.read_mask, lambda folder: image_bytes(folder, ".png", "1")),
    "map": ("a.npy", lambda path: np.array(formats.read_map(path)),
            lambda folder: array_bytes(folder, a=np.ones((3, 4), np.float32))),
    "checked": ("a.flo", formats.check_file, tagged(2)),
    "colmap images": ("images.bin", sparse, COLMAP_IMAGES),
    "colmap cameras": ("cameras.bin", sparse_cameras, COLMAP_CAMERAS),
    "keypoints": ("a.json", dycheck.read_keypoints, b"[[1.5, 2, 1], [3, 4e0, 0]]"),
    "scale": ("a.npy", dycheck.read_scale, lambda folder: array_bytes(folder, a=np.array(2.5))),
    "png": ("a.png", frames_of, lambda folder: image_bytes(folder, ".png", "RGB")),
    "jpeg": ("a.jpg", frames_of, lambda folder: image_bytes(folder, ".jpg", "RGB")),
    "tiff": ("a.tif", frames_of, lambda folder: animation_bytes(folder, ".tif")),
    "gif": ("a.gif", frames_of, lambda folder: animation_bytes(folder, ".gif")),
    "webp": ("a.webp", frames_of, lambda folder: animation_bytes(folder, ".webp")),
    "mp4": ("a.mp4", video_of, lambda folder: video_bytes(folder, ".mp4")),
    "avi": ("a.avi", video_of, lambda folder: video_bytes(folder, ".avi")),
    "mkv": ("a.mkv", video_of, lambda folder: video_bytes(folder, ".mkv")),
    "npz": ("000000.npz", _load_camera,
            lambda folder: array_bytes(folder, pose=np.eye(4), intrinsics=np.eye(3))),
    "pred_traj": ("pred_traj.txt", in_place("cut3r-pose", ""), POSES),
}  # fmt: skip
"""What reads files: name of the file, reader, and contents to start from, or what makes them."""

TEXTS = {
    "capture": (Capture.from_json, '{"statistics": ["entropy"], "layers": [0, 3]}'),
    "cue": (Cue.from_json, Cue.mut3r().to_json()),
    "gate": (Gate.from_json, Gate.mut3r().to_json()),
    "cue of pairs": (PairCue.from_json, PairCue.easi3r().to_json()),
    "gate of pairs": (PairGate.from_json, PairGate(layers=(0, 2)).to_json()),
    "graph of pairs": (lambda text: pair_edges(text, 5), "swinstride-3-noncyclic"),
    "commit": (Commit.from_json, '{"read": "gated", "write": "gated", "reset": "motion(0.3)"}'),
    "words of a commit": (
        Commit.parse,
        "rw.gp rate.ttt3r*const(0.5) reset.saturation(5) reset.chain",
    ),
    "json": (lambda text: parse_json(text, "here"), '{"a": [1, 2.5e3, null]}'),
    "call": (parse_call, "iterate(2)"),
    "frames": (lambda text: Selection.parse(text).indices(9, "it"), "1:8:2"),
    "location": (lambda text: parse_location("tum", text), "/tmp#xyz?pass=clean"),
    "name": (lambda text: (p := split_prefix(text)) and find_opener(p.prefix), "tum:/a#b"),
    "scene name": (open_scene, "orbit-03"),
    "constructor": (parse_constructor, "ARCroco3DStereo(ARCroco3DStereoConfig(state_size=768))"),
    "order of names": (natural_key, "frame0010.png"),
}
"""What reads text, and a text to start from."""

PIECES = [
    b"nan", b"inf", b"-1", b"1e400", b"9" * 5000, b"[" * 500, b"{", b"&a", b"*a", b": ", b"#",
    b"\n", b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\xff" * 8, b"\x7f\xff\xff\xff", b"null",
]  # fmt: skip
INPUTS_PER_DRAW = 25
"""Drawing takes Hypothesis longer than most parsers take: one number gives so many inputs."""


def edited(seed: bytes, draw: random.Random) -> bytes:
    """Cut some bytes out of a seed and put others in; now and then, take bytes alone."""
    if draw.random() < 0.1:
        return draw.randbytes(draw.randrange(60))
    for _ in range(draw.randrange(6)):
        at, cut = draw.randrange(len(seed) + 1), draw.randrange(13)
        piece = draw.choice(PIECES) if draw.random() < 0.5 else draw.randbytes(draw.randrange(9))
        seed = seed[:at] + piece + seed[at + cut :]
    return seed


def edited_text(seed: str, draw: random.Random) -> str:
    if draw.random() < 0.2:
        return "".join(chr(draw.randrange(draw.choice((128, 0xD800)))) for _ in range(40))
    return edited(seed.encode(), draw).decode("utf-8", "replace")


def refusal(read, given) -> str | None:
    """What the one error of this package says, None if there is a value."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            read(given)
        except Mut3rError as error:
            return str(error)
    return None


def try_many(edit, seed, read):
    """Read so many inputs made from a seed; what they raise is ours, and short."""

    @settings(max_examples=-(-CASES // INPUTS_PER_DRAW), deadline=None)
    @given(st.integers(0, 2**32))
    def every(number):
        draw = random.Random(number)
        for _ in range(INPUTS_PER_DRAW):
            given = edit(seed, draw)
            note(repr(given))
            assert len(refusal(read, given) or "") < 41_000

    every()


@pytest.mark.parametrize("kind", FILES)
def test_any_file_is_read_or_refused(tmp_path, kind):
    name, read, seed = FILES[kind]
    seed = seed if isinstance(seed, bytes) else seed(tmp_path)
    (tmp_path / "read").mkdir()
    path = tmp_path / "read" / name
    path.write_bytes(seed)

    def read_as_file(content):
        path.write_bytes(content)
        read(path)

    try_many(edited, seed, read_as_file)


@pytest.mark.parametrize("kind", TEXTS)
def test_any_text_is_read_or_refused(kind):
    read, seed = TEXTS[kind]
    try_many(edited_text, seed, read)


HUGE = [
    10**400,
    10**5000,
    -(10**400),
    "x" * 10**6,
    "x y " * 10**5,
    [[0] * 10**5],
    {"a": "b" * 10**6},
]


@pytest.mark.parametrize("value", HUGE, ids=range(len(HUGE)))
@pytest.mark.parametrize(
    "declare",
    [
        lambda value: Gate.mut3r(beta=value),
        lambda value: Capture(statistics=value),
        lambda value: Capture(layers=value),
        lambda value: Capture(budget=value),
        lambda value: Capture(state=value),
        lambda value: Capture(dtype=value),
        lambda value: Cue.from_dict({"reading": value}),
        lambda value: Selection(value, 3),
        lambda value: Selection(0, value),
        lambda value: Gate.from_dict({"x" * 10**6: 1}),
    ],
)
def test_values_of_any_size_are_one_short_error(declare, value):
    said = refusal(declare, value)
    # A number of bytes may be any.
    assert len(said) < 3000 if said else isinstance(value, int)


def test_the_seeds_themselves_are_read(tmp_path):
    for kind in ("sweep", "trajectory", "dpt", "cam", "png", "tiff", "gif", "labels", "map"):
        name, read, seed = FILES[kind]
        folder = tmp_path / kind
        folder.mkdir()
        content = seed if isinstance(seed, bytes) else seed(tmp_path)
        (folder / name).write_bytes(content)
        read(folder / name)
    assert yaml.safe_load(SWEEP)["backbone"] == "tiny"
