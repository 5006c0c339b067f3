"""Metrics are rows: complete, the one place for their words, and all that a new one takes."""

import dataclasses

import numpy as np
import pytest
import xarray as xr
from scipy.spatial.transform import Rotation

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.evaluation import evaluate, paired, table
from mut3r_analysis.literature import published
from mut3r_analysis.metrics import METRICS, PROTOCOLS, Metric, find_metric, score_masks
from mut3r_analysis.metrics.depth import DEPTH_METRICS
from mut3r_analysis.metrics.metric import POOLINGS
from mut3r_analysis.metrics.protocols import TASKS, frame_metric
from mut3r_analysis.metrics.reconstruction import RECONSTRUCTION_METRICS, score_reconstruction
from mut3r_analysis.metrics.segmentation import MASK_METRICS
from mut3r_analysis.metrics.trajectory import POSE_METRICS


@pytest.mark.parametrize("name", METRICS)
def test_every_row_is_complete(name: str) -> None:
    row = METRICS[name]
    assert row.name == name
    assert row.label
    assert row.long_name
    assert row.units in ("1", "m", "degree")
    assert row.pooling in POOLINGS
    # Tasks may share a metric, which then is one thing.
    assert all(task.metrics.get(name, row) is row for task in TASKS.values())
    higher = ("delta", "region", "boundary", "roc", "normal", "track_within")
    assert row.higher_is_better == name.startswith(higher)
    assert any(name in protocol.metrics for protocol in PROTOCOLS.values())


def test_labels_tell_metrics_apart() -> None:
    assert len({row.label for row in METRICS.values()}) == len(METRICS)
    assert find_metric("rpe_rotation").labelled() == "RPE rotation (°)"
    assert find_metric("delta_1").labelled() == "δ < 1.25"
    assert frame_metric("region").labelled(frames=True) == "region similarity"


def test_what_no_table_knows_is_an_error() -> None:
    with pytest.raises(InvalidArgument, match=r"metric must be one of .*abs_rel.*got 'psnr'"):
        find_metric("psnr")
    with pytest.raises(InvalidArgument, match="no 'pixels' to any metric"):
        frame_metric("pixels")
    with pytest.raises(InvalidArgument, match="metrics must be among abs_rel"):
        dataclasses.replace(PROTOCOLS["default:depth:metric"], metrics=("psnr",))
    with pytest.raises(InvalidArgument, match="a pooling among mean, rmse"):
        Metric("m", "M", "words", "1", "sum", np.abs)
    with pytest.raises(InvalidArgument, match="needs a name, label"):
        Metric("m", "", "words", "1", "mean", np.abs)


def test_published_numbers_under_a_protocol_are_of_its_metrics() -> None:
    rows = published()
    for id, metric in set(zip(rows["protocol"], rows["metric"], strict=True)):
        if id in PROTOCOLS and metric in METRICS:
            assert metric in TASKS[PROTOCOLS[id].task].metrics, (id, metric)


def a_run(seed: int, name: str = "s") -> xr.DataTree:
    """Two frames of true and predicted depth and pose, the first with fewer valid pixels."""
    rng = np.random.default_rng(seed)
    depth = rng.uniform(1, 5, (2, 3, 4))
    depth[0, :2] = np.nan
    pose = np.tile(np.eye(4), (2, 1, 1))
    pose[:, :3, :3] = Rotation.random(2, rng=rng).as_matrix()
    pose[:, :3, 3] = rng.normal(size=(2, 3))
    moved = pose.copy()
    moved[:, :3, 3] += rng.normal(size=(2, 3))
    dims = {"depth": ("frame", "y", "x"), "pose": ("frame", "row", "col")}
    groups = {
        "/": xr.Dataset(attrs={"sequence": {"name": name}, "frames": 2, "frames_complete": 2}),
        "/truth": xr.Dataset({"depth": (dims["depth"], depth), "pose": (dims["pose"], pose)}),
        "/prediction": xr.Dataset(
            {
                "depth": (dims["depth"], rng.uniform(1, 5, depth.shape)),
                "pose": (dims["pose"], moved),
            }
        ),
    }
    frames = {"frame": [0, 1]}
    return xr.DataTree.from_dict(
        {path: group.assign_coords(frames if path != "/" else {}) for path, group in groups.items()}
    )


def test_a_depth_metric_takes_one_row(monkeypatch) -> None:
    share = Metric(
        "near", "near", "fraction with |p - g| < 1 m", "1", "mean",
        lambda g, p: (np.abs(p - g) < 1).mean(), "near", "pixels", higher_is_better=True,
    )  # fmt: skip
    monkeypatch.setitem(DEPTH_METRICS, "near", share)
    protocol = dataclasses.replace(PROTOCOLS["default:depth:metric"], id="mine", metrics=("near",))
    runs = [a_run(seed, f"s{seed}") for seed in range(7)]
    scores = evaluate(runs, protocol)
    expected = []
    for index, run in enumerate(runs):
        g, p = (run[group]["depth"].values for group in ("truth", "prediction"))
        near = [(np.abs(p - g) < 1)[frame][np.isfinite(g[frame])] for frame in range(2)]
        np.testing.assert_allclose(scores["frame_near"][index], [each.mean() for each in near])
        expected.append(np.concatenate(near).mean())
    np.testing.assert_allclose(scores["near"], expected)
    assert float(scores["mean_near"]) == pytest.approx(np.mean(expected))
    assert float(scores["interval_near"][0]) < np.mean(expected) < float(scores["interval_near"][1])
    assert scores["near"].attrs["long_name"] == share.long_name
    assert table(scores).attrs["units"]["near"] == "1"
    perfect = [run.copy(deep=True) for run in runs]
    for run in perfect:
        run["prediction"]["depth"].values[:] = run["truth"]["depth"].fillna(1).values
    assert paired(scores, evaluate(perfect, protocol)).loc["near", "verdict"] == "second is better"


def test_a_pose_metric_takes_one_row(monkeypatch) -> None:
    worst = Metric(
        "height", "height", "error along the world's second axis", "m", "median",
        lambda truth, estimate, delta: np.abs(truth[:, 1, 3] - estimate[:, 1, 3]), "height",
    )  # fmt: skip
    monkeypatch.setitem(POSE_METRICS, "height", worst)
    protocol = dataclasses.replace(
        PROTOCOLS["default:pose:sim3"], id="mine", metrics=("height",), align="none"
    )
    run = a_run(0)
    scores = evaluate(run, protocol)
    away = np.abs(run["truth"]["pose"].values - run["prediction"]["pose"].values)[:, 1, 3]
    np.testing.assert_allclose(scores["frame_height"][0], away)
    assert float(scores["height"][0]) == pytest.approx(np.median(away))
    assert scores["height"].attrs["units"] == "m"


def test_a_mask_metric_takes_one_row(monkeypatch) -> None:
    def missed(truth, prediction, tolerance):
        return (truth & ~prediction).sum((1, 2)) / truth.sum((1, 2))

    row = Metric("missed", "missed", "missed part of what moves", "1", "mean", missed, "missed")
    monkeypatch.setitem(MASK_METRICS, "missed", row)
    truth, prediction = np.random.default_rng(0).random((2, 3, 8, 8)) > 0.5
    scores = score_masks(*(xr.DataArray(m, dims=("frame", "y", "x")) for m in (truth, prediction)))
    expected = [(t & ~p).sum() / t.sum() for t, p in zip(truth, prediction, strict=True)]
    np.testing.assert_allclose(scores["frame_missed"], expected)
    assert float(scores["missed"]) == pytest.approx(np.mean(expected))


def test_a_reconstruction_metric_takes_one_row(monkeypatch) -> None:
    row = Metric(
        "within", "within 50 cm", "fraction of points within 0.5 m", "1", "mean",
        lambda distances: distances["distance"] < 0.5, higher_is_better=True,
    )  # fmt: skip
    monkeypatch.setitem(RECONSTRUCTION_METRICS, "within", row)
    run = a_run(0)
    matrix = ("frame", "camera_row", "camera_col"), np.tile(np.eye(3), (2, 1, 1))
    truth = run["truth"].to_dataset().assign(intrinsics=matrix)
    prediction = truth.assign(depth=run["prediction"]["depth"])
    scores = score_reconstruction(truth, prediction, "none")
    rays = np.linalg.norm(np.stack([*np.indices((3, 4)), np.ones((3, 4))]), axis=0)
    away = rays * np.abs(truth["depth"] - prediction["depth"]).values
    known = np.isfinite(away)
    assert float(scores["within"]) == pytest.approx((away[known] < 0.5).mean())
    assert float(scores["distance_mean"]) == pytest.approx(away[known].mean())
