"""All frames read together by a model, and again without the keys of what moves."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import mut3r_analysis as m3
from mut3r_analysis.backbones import Frame
from mut3r_analysis.backbones.geometry import pose_matrix
from mut3r_analysis.backbones.random_weights import NAMED_CONFIGS, random_backbone
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.motion import WindowSiteGate

FRAMES = 5


@pytest.fixture(scope="module")
def sequence():
    images = np.random.default_rng(0).integers(0, 256, (FRAMES, 42, 56, 3), dtype=np.uint8)
    return m3.open_sequence(images).assign_coords(frame=np.arange(FRAMES) + 10)


@pytest.fixture(scope="module")
def deep():
    """A narrow model as deep as the cue needs."""
    small = NAMED_CONFIGS["vggt-small"]
    sizes = {"enc_embed_dim": 16, "dec_embed_dim": 16, "dec_depth": 22}
    return random_backbone(replace(small, **sizes)).eval().requires_grad_(False)


CUE = m3.WindowCue(offsets=(-1, 1), clusters=8)


def test_poses_come_from_the_second_reading_and_all_else_from_the_first(deep, sequence):
    plain = m3.reconstruct(deep, sequence)
    scored = m3.reconstruct(deep, sequence, cue=CUE)
    both = m3.reconstruct(deep, sequence, cue=CUE, gate=m3.WindowGate())
    for name in ("pose", "depth", "points_world", "confidence_self"):
        np.testing.assert_array_equal(scored[name], plain[name])
    for name in ("depth", "points_self", "points_world", "motion", "mask"):
        np.testing.assert_array_equal(both[name], scored[name])
    cells = scored["mask"].values.reshape(FRAMES, 3, 14, 4, 14).any(axis=(2, 4))
    assert cells.any()
    images = torch.from_numpy(
        np.stack([deep.preparation.image(image) for image in sequence["image"].values])
    )
    removed = WindowSiteGate(m3.WindowGate(), torch.from_numpy(cells), 5)
    second = deep.predict(deep.decode_together(deep.encode(Frame(images)), gate=removed))
    np.testing.assert_array_equal(both["pose"], pose_matrix(second.pose))
    assert not np.array_equal(both["pose"], plain["pose"])


def test_what_it_gives_is_labelled(deep, sequence):
    found = m3.reconstruct(deep, sequence, cue=CUE, outputs=("depth",))
    assert found["frame"].values.tolist() == list(range(10, 10 + FRAMES))
    assert found["depth"].dims == ("frame", "y", "x")
    assert found["mean1"].dims == found["motion"].dims == ("frame", "patch_row", "patch_col")
    assert "points_world" not in found
    assert "pose" not in found


def test_what_cannot_be_read_together_is_refused(deep, sequence):
    with pytest.raises(InvalidArgument, match="give cue=WindowCue"):
        m3.reconstruct(deep, sequence, gate=m3.WindowGate())
    with pytest.raises(InvalidArgument, match="cut3r reads frames one after another"):
        m3.reconstruct(m3.load_backbone("random:small"), sequence.isel(frame=slice(2)))
    shallow = m3.load_backbone("random:vggt-small")
    with pytest.raises(InvalidArgument, match="of which this backbone has 4"):
        m3.reconstruct(shallow, sequence, cue=m3.WindowCue())
