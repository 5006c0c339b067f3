"""Clouds and cameras are where the run and the truth say, and files give them back."""

import json
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mut3r_analysis.errors import AlreadyExists, InvalidArgument
from mut3r_analysis.widgets import SceneView, write_glb, write_ply
from mut3r_analysis.widgets.clouds import frusta, predicted_cloud, true_cloud


def read_ply(path):
    header, body = path.read_bytes().split(b"end_header\n", 1)
    lines = header.decode().splitlines()
    assert lines[:2] == ["ply", "format binary_little_endian 1.0"]
    (count,) = (int(line.split()[2]) for line in lines if line.startswith("element vertex"))
    kinds = {"float": "<f4", "uchar": "u1"}
    fields = [line.split()[1:] for line in lines if line.startswith("property")]
    vertices = np.frombuffer(body, [(name, kinds[kind]) for kind, name in fields])
    assert len(vertices) == count
    return (
        np.stack([vertices[axis] for axis in "xyz"], -1),
        np.stack([vertices[name] for name in ("red", "green", "blue")], -1),
    )


def read_glb(path):
    data = path.read_bytes()
    magic, version, total = struct.unpack_from("<4sII", data)
    assert (magic, version, total) == (b"glTF", 2, len(data))
    size, kind = struct.unpack_from("<I4s", data, 12)
    assert kind == b"JSON"
    assert size % 4 == 0
    document = json.loads(data[20 : 20 + size])
    length, kind = struct.unpack_from("<I4s", data, 20 + size)
    assert kind == b"BIN\0"
    binary = data[28 + size :]
    assert len(binary) == length == document["buffers"][0]["byteLength"]

    def array(index):
        accessor = document["accessors"][index]
        view = document["bufferViews"][accessor["bufferView"]]
        assert view["byteOffset"] % 4 == 0
        width, kind = {"VEC3": (3, "<f4"), "VEC4": (4, "u1")}[accessor["type"]]
        start = view["byteOffset"]
        values = np.frombuffer(binary[start : start + view["byteLength"]], kind).reshape(-1, width)
        assert len(values) == accessor["count"]
        if "min" in accessor:
            np.testing.assert_allclose(values.min(0), accessor["min"])
            np.testing.assert_allclose(values.max(0), accessor["max"])
        return values

    found = {}
    for mesh in document["meshes"]:
        (primitive,) = mesh["primitives"]
        attributes = primitive["attributes"]
        found[mesh["name"]] = (
            array(attributes["POSITION"]), array(attributes["COLOR_0"]), primitive["mode"],
        )  # fmt: skip
    return found


finite = st.floats(-1e4, 1e4, width=32)


@given(data=st.data(), count=st.integers(1, 30))
def test_files_give_points_and_colours_back(data, count, tmp_path_factory):
    positions = data.draw(hnp.arrays(np.float32, (count, 3), elements=finite))
    colors = data.draw(hnp.arrays(np.uint8, (count, 3)))
    folder = tmp_path_factory.mktemp("clouds")
    for back, given_ in zip(
        read_ply(write_ply(folder / "a.ply", positions, colors)), (positions, colors), strict=True
    ):
        np.testing.assert_array_equal(back, given_)
    path = write_glb(
        folder / "a.glb", {"one": (positions, colors)}, {"way": (positions[None, :2], (1, 2, 3))}
    )
    meshes = read_glb(path)
    np.testing.assert_array_equal(meshes["one"][0], positions)
    np.testing.assert_array_equal(meshes["one"][1][:, :3], colors)
    assert (meshes["one"][1][:, 3] == 255).all()
    assert (meshes["one"][2], meshes["way"][2]) == (0, 1)


def test_files_refuse_what_does_not_belong_together(tmp_path):
    with pytest.raises(InvalidArgument, match="of the same points"):
        write_ply(tmp_path / "a.ply", np.zeros((2, 3)), np.zeros((3, 3), np.uint8))
    with pytest.raises(InvalidArgument, match="colours are uint8"):
        write_ply(tmp_path / "a.ply", np.zeros((2, 3)), np.zeros((2, 3)))
    with pytest.raises(InvalidArgument, match="no points and no lines"):
        write_glb(tmp_path / "a.glb", {}, {})


def test_predicted_points_are_those_of_the_run(archived):
    cloud = predicted_cloud(archived, 1, stride=1)
    expected = archived["prediction/points_world"].sel(frame=1).values.reshape(-1, 3)
    np.testing.assert_array_equal(cloud.positions, expected)
    thin = predicted_cloud(archived, 1, stride=4)
    np.testing.assert_array_equal(thin.positions, expected[thin.pixels])
    assert len(thin.pixels) == 12 * 16
    sure = predicted_cloud(archived, 1, stride=1, least_confidence=0.5)
    confidence = archived["prediction/confidence_world"].sel(frame=1).values.ravel()
    assert confidence[sure.pixels].min() >= np.median(confidence)


def test_true_points_project_back_to_their_pixels_and_depths(archived):
    truth = archived["truth"].to_dataset()
    first = archived["prediction/pose"].sel(frame=0).values.astype(float)
    cloud = true_cloud(archived, 2, stride=3)
    camera = first @ np.linalg.inv(truth["pose"].values[0]) @ truth["pose"].values[2]
    local = (cloud.positions - camera[:3, 3]) @ np.linalg.inv(camera[:3, :3]).T
    depth = truth["depth"].values[2].ravel()[cloud.pixels]
    np.testing.assert_allclose(local[:, 2], depth, rtol=1e-3)
    image = local @ truth["intrinsics"].values[2].T
    row, column = np.divmod(cloud.pixels, truth.sizes["x"])
    np.testing.assert_allclose(image[:, 0] / image[:, 2], column, atol=1e-2)
    np.testing.assert_allclose(image[:, 1] / image[:, 2], row, atol=1e-2)


def test_a_frustum_starts_at_the_camera_and_opens_forward():
    pose = np.eye(4)[None].repeat(2, 0)
    pose[1, :3, 3] = 1, 2, 3
    edges = frusta(pose, (0.5, 0.25), reach=2.0)
    assert edges.shape == (2, 9, 2, 3)
    np.testing.assert_array_equal(edges[1, :4, 0], np.tile([1, 2, 3], (4, 1)))
    np.testing.assert_allclose(np.linalg.norm(edges[0, :4, 1], axis=1), 2, rtol=1e-6)
    corner = edges[0, 2, 1]
    np.testing.assert_allclose(corner / corner[2], [0.5, 0.25, 1], rtol=1e-6)
    np.testing.assert_array_equal(edges[1, 8], [[0, 0, 0], [1, 2, 3]])


def test_the_view_exports_what_it_shows(archived, scene, tmp_path):
    view = SceneView(archived, scene)
    view.frame, view.visible = 1, ["run", "truth"]
    positions, colors = view.cloud("run")
    pixels = scene["image"].values
    if pixels.shape[1:3] == (48, 64):
        np.testing.assert_array_equal(colors, pixels[:2].reshape(-1, 3))
    back, back_colors = read_ply(view.export(tmp_path / "scene.ply"))
    np.testing.assert_array_equal(back[: len(positions)], positions)
    np.testing.assert_array_equal(back_colors[: len(colors)], colors)
    meshes = read_glb(view.export(tmp_path / "scene.glb"))
    assert set(meshes) == {"run", "truth", "run cameras", "truth cameras"}
    np.testing.assert_array_equal(meshes["run"][0], positions)
    assert len(meshes["run cameras"][0]) == 2 * 9 * 2
    _, arrays = view.answer({"ask": "points", "frame": 1})
    np.testing.assert_array_equal(np.concatenate([arrays[0]]), positions[len(positions) // 2 :])


def test_an_export_overwrites_its_like_alone(archived, scene, tmp_path):
    view = SceneView(archived, scene)
    for name in ("scene.ply", "scene.glb"):
        view.export(tmp_path / name)
        again = view.export(tmp_path / name)
        again.write_text("something else")
        with pytest.raises(AlreadyExists, match="choose another name"):
            view.export(again)
    view.visible = []
    with pytest.raises(InvalidArgument, match="nothing is visible"):
        view.export(tmp_path / "other.ply")


def test_a_lost_true_camera_leaves_out_its_points_and_its_frustum(archived, scene, tmp_path):
    lost = archived.copy(deep=True)
    lost["truth/pose"][1] = np.nan
    view = SceneView(lost, scene)
    view.visible = ["run", "truth"]
    whole = SceneView(archived, scene)
    whole.visible = view.visible
    meshes, before = (read_glb(each.export(tmp_path / "scene.glb")) for each in (view, whole))
    assert all(np.isfinite(positions).all() for positions, *_ in meshes.values())
    ends = [len(each["truth cameras"][0]) for each in (meshes, before)]
    # Its own nine edges, and the one that leads from it to the camera of the next frame.
    assert ends[1] - ends[0] == 2 * (9 + 1)
    assert 0 < len(meshes["truth"][0]) < len(before["truth"][0])


def test_colours_follow_error_and_motion(cued, scene):
    view = SceneView(cued, scene)
    view.alone = True
    seen = {}
    for coloring in view.held["colorings"]:
        view.coloring = coloring
        seen[coloring] = view.cloud("run")[1]
    assert list(seen) == ["image", "error", "motion", "source"]
    assert len(np.unique(seen["source"], axis=0)) == 1
    cells = cued["cue/motion"].sel(frame=view.frame).values
    blocks = seen["motion"].reshape(6, 8, 8, 8, 3)
    assert (blocks == blocks[:, :1, :, :1]).all()
    assert len(np.unique(blocks[:, 0, :, 0].reshape(-1, 3), axis=0)) <= len(np.unique(cells))


def test_clouds_stay_below_the_bound(archived, scene):
    for most in (500, 5_000, 1_000_000):
        view = SceneView(archived, scene, most_points=most)
        total = sum(
            len(array)
            for frame in view.held["frames"]
            for array in view.answer({"ask": "points", "frame": frame})[1]
        )
        assert 0 < total <= most


def test_what_makes_no_sense_is_refused(archived, model, scene, tmp_path):
    with pytest.raises(InvalidArgument, match=r"most_points must be .* from 1 to 1000000"):
        SceneView(archived, most_points=2_000_000)
    with pytest.raises(InvalidArgument, match="names the true cloud"):
        SceneView({"truth": archived})
    view = SceneView(archived, scene)
    with pytest.raises(InvalidArgument, match=r"written as \.ply or \.glb"):
        view.export(tmp_path / "scene.obj")
    with pytest.raises(InvalidArgument, match="cloud must be one of"):
        view.visible = ["other"]
    bare = archived.copy()
    bare["prediction"] = bare["prediction"].to_dataset().drop_vars("points_world")
    with pytest.raises(InvalidArgument, match="outputs=None"):
        SceneView(bare)


def test_figure_and_page_are_made(archived, scene, tmp_path):
    view = SceneView(archived, scene, most_points=4_000)
    assert len(view.figure(size="column").axes) == 2
    assert view.save_html(tmp_path / "scene.html").stat().st_size > 20_000
