"""Camera-path errors equal evo's, do not depend on what they should not, and refuse bad input."""

import itertools
import json
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from mut3r_analysis.errors import InvalidArgument, MissingFile, UnreadableFile
from mut3r_analysis.metrics import (
    UndefinedMetric,
    absolute_errors,
    associate,
    compare_trajectories,
    detect_order,
    fit_similarity,
    read_trajectory,
    relative_errors,
    score_trajectory,
)
from mut3r_analysis.metrics.trajectory import POSE_METRICS, error_statistics

FILES = (
    "freiburg1_xyz-groundtruth.txt",
    "freiburg1_xyz-rgbdslam_drift.txt",
    "freiburg1_xyz-rgbdslam_drift_short.txt",
    "freiburg1_xyz-ORB_kf_mono.txt",
)


def path_of(frames: int, seed: int) -> NDArray[np.float64]:
    """A smooth random camera path (frame, row, col)."""
    rng = np.random.default_rng(seed)
    poses = np.tile(np.eye(4), (frames, 1, 1))
    poses[:, :3, :3] = Rotation.from_rotvec(
        np.cumsum(rng.normal(0, 0.1, (frames, 3)), axis=0)
    ).as_matrix()
    poses[:, :3, 3] = np.cumsum(rng.normal(0, 0.2, (frames, 3)), axis=0)
    return poses


def moved(poses: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """The same path under a random similarity."""
    rng = np.random.default_rng(seed)
    rotation = Rotation.random(rng=rng).as_matrix()
    result = poses.copy()
    result[:, :3, :3] = rotation @ poses[:, :3, :3]
    scale = np.exp(rng.uniform(-2, 2))
    result[:, :3, 3] = scale * poses[:, :3, 3] @ rotation.T + rng.normal(0, 10, 3)
    return result


def labelled(poses: NDArray[np.float64]) -> xr.DataArray:
    return xr.DataArray(poses, dims=("frame", "row", "col"))


def write_tum(
    file: Path, poses: NDArray[np.float64], order: str = "xyzw", header: str = ""
) -> Path:
    quaternions = Rotation.from_matrix(poses[:, :3, :3]).as_quat()
    if order == "wxyz":
        quaternions = np.roll(quaternions, 1, axis=1)
    rows = np.column_stack([np.arange(len(poses)) / 30, poses[:, :3, 3], quaternions])
    lines = [" ".join(repr(float(v)) for v in row) for row in rows]
    file.write_text(header + "\n".join(lines) + "\n")
    return file


def evo_scores(truth: Path, estimate: Path, align: str, max_difference: float) -> list[float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from evo.core import metrics, sync
        from evo.tools import file_interface
    wanted, found = sync.associate_trajectories(
        file_interface.read_tum_trajectory_file(truth),
        file_interface.read_tum_trajectory_file(estimate),
        max_diff=max_difference,
    )
    if align != "none":
        found.align(wanted, correct_scale=align == "sim3")
    translation = metrics.PoseRelation.translation_part
    rotation = metrics.PoseRelation.rotation_angle_deg
    processors = [
        metrics.APE(translation),
        *(
            metrics.RPE(relation, 1, metrics.Unit.frames, all_pairs=True)
            for relation in (translation, rotation)
        ),
    ]
    for processor in processors:
        processor.process_data((wanted, found))
    every = [list(p.get_all_statistics().items()) for p in processors]
    names = {"rmse", "mean", "median", "std", "min", "max", "sse"}
    return [wanted.num_poses, *(dict(s)[n] for s in every for n in sorted(names))]


def own_scores(truth: Path, estimate: Path, align: str, max_difference: float) -> list[float]:
    scores = compare_trajectories(truth, estimate, align, max_difference)
    table = scores["statistics"].sortby("statistic")
    return [int(scores["n"]), *table.values.ravel()]


@pytest.mark.parametrize("align", ["sim3", "se3", "none"])
@pytest.mark.parametrize(("first", "second"), list(itertools.product(FILES, FILES)))
def test_scores_equal_evo_on_real_files(shared: Path, first: str, second: str, align: str) -> None:
    truth, estimate = shared / "trajectories" / first, shared / "trajectories" / second
    if {first, second} == {FILES[2], FILES[3]}:
        with pytest.raises(InvalidArgument, match="no stamps within"):
            compare_trajectories(truth, estimate, align)
        return
    expected = evo_scores(truth, estimate, align, 0.01)
    found = own_scores(truth, estimate, align, 0.01)
    # The short file is a prefix of the long one: their errors are rounding noise around zero.
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("align", ["sim3", "se3", "none"])
@pytest.mark.parametrize("seed", range(5))
def test_scores_equal_evo_on_perturbed_copies(
    shared: Path, tmp_path: Path, seed: int, align: str
) -> None:
    truth = shared / "trajectories" / FILES[seed % 2]
    original = read_trajectory(truth)
    rng = np.random.default_rng(seed)
    poses = moved(original.poses[:700], seed)
    poses[:, :3, 3] += rng.normal(0, 0.05, (len(poses), 3))
    poses[:, :3, :3] = (
        poses[:, :3, :3] @ Rotation.from_rotvec(rng.normal(0, 0.02, (len(poses), 3))).as_matrix()
    )
    estimate = write_tum(tmp_path / "estimate.txt", poses)
    shifted = np.loadtxt(estimate)
    shifted[:, 0] = original.stamps[:700] + rng.uniform(-0.004, 0.004)
    np.savetxt(estimate, shifted, fmt="%.18g")
    expected = evo_scores(truth, estimate, align, 0.02)
    np.testing.assert_allclose(own_scores(truth, estimate, align, 0.02), expected, rtol=1e-9)


@given(st.integers(3, 30), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_errors_do_not_see_a_similarity_of_the_estimate(frames: int, seed: int) -> None:
    truth, estimate = path_of(frames, seed), path_of(frames, seed + 1)
    plain = score_trajectory(labelled(truth), labelled(estimate))
    changed = score_trajectory(labelled(truth), labelled(moved(estimate, seed)))
    for name in ("ate", "rpe_translation", "rpe_rotation"):
        np.testing.assert_allclose(changed[name], plain[name], rtol=1e-6)


@given(st.integers(3, 30), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_alignment_recovers_a_similarity(frames: int, seed: int) -> None:
    truth = path_of(frames, seed)
    estimate = moved(truth, seed)
    found = fit_similarity(estimate[:, :3, 3], truth[:, :3, 3])
    np.testing.assert_allclose(found.apply_to_poses(estimate), truth, atol=1e-6)
    assert np.linalg.det(found.rotation) == pytest.approx(1)


def test_rigid_alignment_leaves_relative_errors_unaligned() -> None:
    truth, estimate = path_of(12, 0), path_of(12, 1)
    rigid = score_trajectory(labelled(truth), labelled(estimate), "se3")
    free = score_trajectory(labelled(truth), labelled(estimate), "none")
    for name in ("rpe_translation", "rpe_rotation"):
        np.testing.assert_allclose(rigid[name], free[name], rtol=1e-12)
    assert rigid["ate"] < free["ate"]


def test_a_mirrored_path_is_met_by_a_rotation_not_a_reflection() -> None:
    points = path_of(20, 3)[:, :3, 3]
    found = fit_similarity(points * [1, 1, -1], points)
    assert np.linalg.det(found.rotation) == pytest.approx(1)


def test_relative_errors_follow_their_definition_at_any_delta() -> None:
    truth, estimate = path_of(9, 5), path_of(9, 6)
    translation, rotation = relative_errors(truth, estimate, delta=3)
    inverse = np.linalg.inv
    for i in range(6):
        error = inverse(inverse(truth[i]) @ truth[i + 3]) @ inverse(estimate[i]) @ estimate[i + 3]
        assert translation[i] == pytest.approx(np.linalg.norm(error[:3, 3]))
        cosine = (np.trace(error[:3, :3]) - 1) / 2
        assert rotation[i] == pytest.approx(np.degrees(np.arccos(cosine)))


def test_statistics_of_known_errors() -> None:
    found = error_statistics([3.0, 4.0, 0.0, 5.0])
    np.testing.assert_allclose(
        found, [np.sqrt(12.5), 3, 3.5, np.sqrt(12.5 - 9), 0, 5, 50], rtol=1e-15
    )


@given(
    st.lists(st.integers(0, 200), min_size=1, max_size=30, unique=True),
    st.lists(st.integers(0, 200), min_size=1, max_size=30, unique=True),
    st.integers(0, 5),
)
@settings(max_examples=100, deadline=None)
def test_association_equals_a_search_over_all_stamps(
    first: list[int], second: list[int], reach: int
) -> None:
    truth, estimate = np.sort(first) / 4, np.sort(second) / 4
    swap = len(estimate) > len(truth)
    short, long = (truth, estimate) if swap else (estimate, truth)
    pairs = [(i, int(np.argmin(np.abs(long - s)))) for i, s in enumerate(short)]
    pairs = [(i, j) for i, j in pairs if abs(long[j] - short[i]) <= reach / 4]
    if not pairs:
        with pytest.raises(InvalidArgument, match="no stamps within"):
            associate(truth, estimate, reach / 4)
        return
    found = associate(truth, estimate, reach / 4)
    of_short, of_long = found if swap else found[::-1]
    assert list(zip(of_short, of_long, strict=True)) == pairs


@pytest.mark.parametrize(
    ("stamps", "words"),
    [([0.0, 1.0, 1.0], "appears twice"), ([0.0, 2.0, 1.0], "not sorted"), ([], "non-empty")],
)
def test_stamps_that_cannot_be_paired_are_refused(stamps: list[float], words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        associate(stamps, [0.0, 1.0])


def test_frame_numbers_do_not_meet_wall_clock_stamps() -> None:
    with pytest.raises(InvalidArgument, match="counts frames"):
        associate(1305031102.1 + np.arange(5), np.arange(5))


class TestNonsenseIsSaid:
    @pytest.mark.parametrize("align", ["sim3", "se3", "none"])
    @pytest.mark.parametrize("factor", [1000.0, 0.001, 5e4])
    def test_paths_in_other_units(self, align: str, factor: float) -> None:
        truth, estimate = path_of(12, 0), path_of(12, 0)
        estimate[:, :3, 3] *= factor
        with pytest.warns(UserWarning, match=re.escape(f"{factor:.3g} times as large")):
            scores = score_trajectory(labelled(truth), labelled(estimate), align)
        assert (align == "sim3") == (float(scores["ate"]) < 1e-9)

    @pytest.mark.parametrize("factor", [0.05, 1.0, 30.0])
    def test_a_free_scale_is_not_another_unit(self, factor: float) -> None:
        estimate = path_of(12, 0)
        estimate[:, :3, 3] *= factor
        assert score_trajectory(labelled(path_of(12, 0)), labelled(estimate))["ate"] < 1e-9

    @pytest.mark.parametrize("inverted", ["truth", "estimate"])
    @pytest.mark.parametrize("seed", range(3))
    def test_world_to_camera_poses(self, inverted: str, seed: int) -> None:
        poses = path_of(40, seed)
        other = moved(poses, seed)
        rng = np.random.default_rng(seed)
        other[:, :3, 3] += rng.normal(0, 0.01, (40, 3))
        pair = [np.linalg.inv(poses), other] if inverted == "truth" else [
            poses, np.linalg.inv(other)
        ]  # fmt: skip
        words = {"truth": "true", "estimate": "estimated"}
        with pytest.warns(
            UserWarning, match=f"the {words[inverted]} poses seem to be world-to-cam"
        ):
            score_trajectory(*map(labelled, pair))

    @pytest.mark.parametrize("seed", range(4))
    def test_a_poor_estimate_is_poor_either_way(self, seed: int) -> None:
        score_trajectory(labelled(path_of(40, seed)), labelled(path_of(40, seed + 10)))


class TestDegeneratePaths:
    def test_a_static_truth_is_named(self) -> None:
        still = np.tile(np.eye(4), (6, 1, 1))
        with pytest.raises(UndefinedMetric, match=r"target \(ground truth\) camera stands still"):
            score_trajectory(labelled(still), labelled(path_of(6, 0)))

    def test_a_static_estimate_is_named(self) -> None:
        still = np.tile(np.eye(4), (6, 1, 1))
        with pytest.raises(UndefinedMetric, match=r"source \(estimate\) camera stands still"):
            score_trajectory(labelled(path_of(6, 0)), labelled(still))

    @pytest.mark.parametrize("scale", [1.0, 10.0])
    @pytest.mark.parametrize("align", ["sim3", "se3"])
    def test_a_straight_path_is_scored_and_what_it_leaves_open_is_said(
        self, scale: float, align: str
    ) -> None:
        line = path_of(6, 1)  # the camera turns, and moves on a line
        line[:, :3, 3] = scale * np.arange(6)[:, None] * [0.3, 0.2, -0.7]
        estimate = path_of(6, 0)
        found = score_trajectory(labelled(line), labelled(estimate), align)
        assert "about a straight path" in found.attrs["undetermined"]
        # Whatever rotation about the line is taken, the errors are these.
        turned = np.eye(4)
        axis = np.array([0.3, 0.2, -0.7]) / np.linalg.norm([0.3, 0.2, -0.7])
        turned[:3, :3] = Rotation.from_rotvec(1.1 * axis).as_matrix()
        again = score_trajectory(labelled(turned @ line), labelled(estimate), align)
        for name in POSE_METRICS:
            assert float(again[name]) == pytest.approx(float(found[name]), rel=1e-6, abs=1e-9)
        # The fit is the best there is: nudging its scale or shift makes it no better.
        fitted = fit_similarity(estimate[:, :3, 3], line[:, :3, 3], align, line=True)
        centres = fitted.apply_to_points(estimate[:, :3, 3])
        best = np.mean((centres - line[:, :3, 3]) ** 2)
        assert np.sqrt(3 * best) == pytest.approx(float(found["ate"]))
        for shift in np.eye(3):
            assert np.mean((centres + 1e-3 * scale * shift - line[:, :3, 3]) ** 2) > best

    def test_a_straight_path_has_no_rotation_for_points(self) -> None:
        line = np.arange(6)[:, None] * [0.3, 0.2, -0.7]
        with pytest.raises(UndefinedMetric, match="straight line"):
            fit_similarity(path_of(6, 0)[:, :3, 3], line)

    def test_a_static_truth_has_errors_without_alignment(self) -> None:
        still = np.tile(np.eye(4), (6, 1, 1))
        assert score_trajectory(labelled(still), labelled(still), "none")["ate"] == 0

    def test_two_poses_are_too_few(self) -> None:
        with pytest.raises(UndefinedMetric, match="at least 3"):
            score_trajectory(labelled(path_of(2, 0)), labelled(path_of(2, 1)))

    def test_infinite_truth_names_its_frame(self) -> None:
        truth = path_of(5, 0)
        truth[3] = -np.inf
        with pytest.raises(UndefinedMetric, match="1 of 5 poses, first at frame 3"):
            score_trajectory(labelled(truth), labelled(path_of(5, 1)))

    def test_lengths_must_agree(self) -> None:
        with pytest.raises(InvalidArgument, match="truth has 5 poses and estimate 4"):
            absolute_errors(path_of(5, 0), path_of(4, 0))

    def test_unknown_alignment_is_refused(self) -> None:
        with pytest.raises(InvalidArgument, match="sim3, se3, none"):
            score_trajectory(labelled(path_of(5, 0)), labelled(path_of(5, 1)), "scale")


class TestQuaternionOrder:
    """A file is read in the declared order or in TUM order, and never against the evidence."""

    def test_declared_orders_read_the_same_poses(self, tmp_path: Path) -> None:
        poses = path_of(8, 0)
        tum = read_trajectory(write_tum(tmp_path / "a.txt", poses), "xyzw")
        other = read_trajectory(write_tum(tmp_path / "b.txt", poses, "wxyz"), "wxyz")
        np.testing.assert_allclose(tum.poses, poses, atol=1e-14)
        np.testing.assert_allclose(other.poses, poses, atol=1e-14)
        assert tum.evidence == other.evidence == "declared"

    def test_column_names_settle_the_order(self, tmp_path: Path) -> None:
        header = "# timestamp tx ty tz qw qx qy qz\n"
        file = write_tum(tmp_path / "a.txt", path_of(8, 0), "wxyz", header)
        with pytest.raises(InvalidArgument, match="a comment names qw first"):
            read_trajectory(file)
        with pytest.raises(InvalidArgument, match="names the columns in the order wxyz"):
            read_trajectory(file, "xyzw")
        np.testing.assert_allclose(read_trajectory(file, "wxyz").poses, path_of(8, 0), atol=1e-14)

    def test_a_first_pose_at_the_identity_settles_the_order(self, tmp_path: Path) -> None:
        poses = np.linalg.inv(path_of(8, 0)[0]) @ path_of(8, 0)
        assert read_trajectory(write_tum(tmp_path / "a.txt", poses)).evidence == (
            "first pose is the identity"
        )
        with pytest.raises(InvalidArgument, match="identity only as wxyz"):
            read_trajectory(write_tum(tmp_path / "b.txt", poses, "wxyz"))

    def test_a_bare_file_says_that_nothing_confirms_it(self, tmp_path: Path) -> None:
        poses = path_of(8, 0)
        poses[0, :3, 3] = 1.0
        assert "unconfirmed" in read_trajectory(write_tum(tmp_path / "a.txt", poses)).evidence

    @pytest.mark.parametrize("seed", range(5))
    def test_agreement_with_the_truth_settles_the_order(self, tmp_path: Path, seed: int) -> None:
        truth = path_of(30, seed)
        truth[0, :3, 3] = 1.0
        file = write_tum(tmp_path / "truth.txt", truth)
        right = write_tum(tmp_path / "xyzw.txt", moved(truth, seed))
        wrong = write_tum(tmp_path / "wxyz.txt", moved(truth, seed), "wxyz")
        found = compare_trajectories(file, right)
        assert found.attrs["quaternion_evidence"].endswith("rotations agree with the truth")
        with pytest.raises(InvalidArgument, match="declare quaternion='wxyz'"):
            compare_trajectories(file, wrong)
        declared = compare_trajectories(file, wrong, quaternion="wxyz")
        np.testing.assert_allclose(declared["rpe_rotation"], 0, atol=1e-6)

    def test_real_files_in_the_other_order_are_refused(self, shared: Path, tmp_path: Path) -> None:
        truth = shared / "trajectories" / FILES[0]
        for name in FILES[1:]:
            rows = np.loadtxt(shared / "trajectories" / name)
            rows[:, 4:] = np.roll(rows[:, 4:], 1, axis=1)
            np.savetxt(tmp_path / name, rows, fmt="%.9f")
            with pytest.raises(InvalidArgument, match="wxyz"):
                compare_trajectories(truth, tmp_path / name)

    def test_reading_in_the_wrong_order_keeps_all_relative_angles(self) -> None:
        right = Rotation.random(50, rng=np.random.default_rng(0))
        wrong = Rotation.from_quat(np.roll(right.as_quat(), 1, axis=1))
        np.testing.assert_allclose(
            (right[:-1].inv() * right[1:]).magnitude(),
            (wrong[:-1].inv() * wrong[1:]).magnitude(),
            atol=1e-7,
        )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0 0 0 0 0 0 0\n", "line 1: 7 numbers"),
        ("# only a comment\n\n", "holds no poses"),
        ("0 0 0 0 0 0 0 1\n1 0 0 x 0 0 0 1\n", "line 2: could not convert"),
        ("0 0 nan 0 0 0 0 1\n", "line 1: NaN or infinity"),
        ("0 0 0 0 0 0 0 2\n", "line 1: the last four numbers have norm 2"),
    ],
)
def test_files_that_are_not_trajectories_are_refused(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "path.txt"
    file.write_text(text)
    with pytest.raises(UnreadableFile, match=words):
        read_trajectory(file)


def test_a_missing_or_binary_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match="no trajectory file"):
        read_trajectory(tmp_path / "absent.txt")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(UnreadableFile, match="cannot be read as text"):
        read_trajectory(tmp_path / "binary.txt")
    with pytest.raises(InvalidArgument, match="quaternion must be one of None, xyzw, wxyz"):
        read_trajectory(tmp_path / "absent.txt", "zyxw")


def odd_files(path: Path) -> dict[str, tuple[list[str], str]]:
    """Lines of a trajectory changed as real ones are, and the note that each change deserves."""
    lines = path.read_text().splitlines()
    stamp = lines[3].split()[0]
    return {
        "NaN": ([*lines[:3], stamp + " nan" * 7, *lines[4:]], "poses with NaN or infinity: 1"),
        "infinite": ([*lines[:2], "0.06 inf 0 0 0 0 0 1", *lines[3:]], "NaN or infinity: 1"),
        "repeated": ([*lines, lines[-1]], "entries that repeat a stamp: 1"),
        "repeated twice": ([*lines[:4], *lines[3:6], *lines[5:]], "repeat a stamp: 2"),
        "unsorted": (lines[::-1], f"stamps that ran backwards: {len(lines) - 1}"),
        "commas": ([line.replace(" ", ",") for line in lines], f"lines with commas: {len(lines)}"),
        "more columns": (
            [*lines[:4], *(line + " 0 7" for line in lines[4:])],
            f"lines with more than 8 numbers: {len(lines) - 4}",
        ),
    }


ODD = ("NaN", "infinite", "repeated", "repeated twice", "unsorted", "commas", "more columns")


@pytest.mark.parametrize("kind", ODD)
def test_odd_files_are_read_with_counts_in_a_warning(tmp_path: Path, kind: str) -> None:
    truth = write_tum(tmp_path / "truth.txt", path_of(12, 0))
    estimate = write_tum(tmp_path / "estimate.txt", moved(path_of(12, 0), 1))
    lines, note = odd_files(truth)[kind]
    odd = tmp_path / "odd.txt"
    odd.write_text("\n".join(lines) + "\n")
    with pytest.warns(UserWarning, match=f"odd.txt.*{note}"):
        found = read_trajectory(odd)
    assert len(found) == len(lines)
    assert np.isnan(found.poses).any((1, 2)).sum() == ("NaN" in note)
    with pytest.warns(UserWarning, match=note):
        scores = compare_trajectories(odd, estimate)
    # The same path lies under both, so what was odd leaves no error behind.
    assert scores["n"] == 12 - ("NaN" in note)
    assert scores["ate"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("kind", ["repeated", "repeated twice", "unsorted"])
def test_odd_files_score_as_evo_scores_them(tmp_path: Path, kind: str) -> None:
    truth = write_tum(tmp_path / "truth.txt", path_of(15, 0))
    odd = tmp_path / "odd.txt"
    odd.write_text("\n".join(odd_files(truth)[kind][0]) + "\n")
    estimate = write_tum(tmp_path / "estimate.txt", path_of(15, 3))
    with pytest.warns(UserWarning, match="stamp"):
        found = own_scores(odd, estimate, "se3", 0.01)
    expected = evo_scores(odd, estimate, "se3", 0.01)
    # The first eight numbers are the count and the absolute errors; relative ones need an order.
    np.testing.assert_allclose(found[:8], expected[:8], rtol=1e-9)


def test_columns_named_as_in_euroc_settle_the_order(tmp_path: Path) -> None:
    header = (
        "#timestamp [ns],p_RS_R_x [m],p_RS_R_y [m],p_RS_R_z [m],q_RS_w [],q_RS_x [],q_RS_y []\n"
    )
    file = write_tum(tmp_path / "a.txt", path_of(8, 0), "wxyz", header)
    found = read_trajectory(file)
    assert found.quaternion == "wxyz"
    np.testing.assert_allclose(found.poses, path_of(8, 0), atol=1e-9)
    with pytest.raises(InvalidArgument, match="in the order wxyz"):
        read_trajectory(file, "xyzw")


@pytest.mark.parametrize("start", [0.0, 1403636579.76])
@pytest.mark.parametrize(
    ("unit", "name"), [(1e3, "milliseconds"), (1e6, "microseconds"), (1e9, "nanoseconds")]
)
@pytest.mark.parametrize("finer", ["estimate", "truth"])
def test_other_units_of_time_are_named(
    tmp_path: Path, start: float, unit: float, name: str, finer: str
) -> None:
    files = {which: tmp_path / f"{which}.txt" for which in ("truth", "estimate")}
    for which, file in files.items():
        rows = np.loadtxt(write_tum(file, path_of(30, 0)))
        rows[:, 0] = (start + rows[:, 0]) * (unit if which == finer else 1)
        np.savetxt(file, rows, fmt="%.9f")
    with pytest.raises(
        InvalidArgument, match=f"the {finer} counts.*1e{len(str(round(unit))) - 1} times.*{name}"
    ) as caught:
        compare_trajectories(files["truth"], files["estimate"])
    assert "write the stamps of both in seconds" in str(caught.value)


@pytest.mark.parametrize("start", [0.0, 1403636579.76])
def test_stamps_of_both_in_other_units_are_said(tmp_path: Path, start: float) -> None:
    file = write_tum(tmp_path / "a.txt", path_of(9, 0))
    rows = np.loadtxt(file)
    rows[:, 0] = np.round((start + rows[:, 0]) * 1e9)
    np.savetxt(file, rows, fmt="%.9f")
    with pytest.warns(UserWarning, match=r"these\s+stamps are not seconds"):
        scores = compare_trajectories(file, file)
    assert scores["n"] == 9


def test_a_short_estimate_of_a_long_truth_is_no_other_unit(tmp_path: Path) -> None:
    truth = write_tum(tmp_path / "truth.txt", path_of(3000, 0))
    estimate = write_tum(tmp_path / "estimate.txt", path_of(3000, 0)[:4])
    assert compare_trajectories(truth, estimate)["n"] == 4


def test_reused_poses_are_counted(tmp_path: Path) -> None:
    truth = write_tum(tmp_path / "truth.txt", path_of(10, 0))
    sparse = np.loadtxt(truth)
    sparse = np.insert(sparse, 4, sparse[3], axis=0)[:9]
    sparse[4, 0] += 0.001
    np.savetxt(tmp_path / "estimate.txt", sparse, fmt="%.12f")
    scores = compare_trajectories(truth, tmp_path / "estimate.txt", quaternion="xyzw")
    assert scores.attrs["n_reused"] == 1


def write_kitti(path: Path, poses: NDArray[np.float64]) -> Path:
    np.savetxt(path, poses[:, :3].reshape(len(poses), 12))
    return path


def write_euroc(path: Path, poses: NDArray[np.float64]) -> Path:
    header = "#timestamp, p_RS_R_x [m], p_RS_R_y [m], p_RS_R_z [m], q_RS_w [], q_RS_x [], ..."
    lines = [header]
    for frame, pose in enumerate(poses):
        quaternion = np.roll(Rotation.from_matrix(pose[:3, :3]).as_quat(), 1)
        stamp = 1403636579763555584 + 50_000_000 * frame
        numbers = [*pose[:3, 3], *quaternion, 0.0, 0.0]
        lines.append(",".join([str(stamp), *(f"{each:.12g}" for each in numbers)]))
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_files_of_kitti_and_euroc_are_known_by_what_is_in_them(tmp_path: Path) -> None:
    truth, estimate = path_of(12, 0), moved(path_of(12, 0), 1)
    kitti = [write_kitti(tmp_path / f"{i}.txt", each) for i, each in enumerate((truth, estimate))]
    np.testing.assert_allclose(read_trajectory(kitti[0]).poses, truth, atol=1e-12)
    expected = score_trajectory(labelled(truth), labelled(estimate))
    assert float(compare_trajectories(*kitti)["ate"]) == pytest.approx(
        float(expected["ate"]), abs=1e-9
    )
    euroc = read_trajectory(write_euroc(tmp_path / "data.csv", truth))
    np.testing.assert_allclose(euroc.poses, truth, atol=1e-9)
    assert (euroc.quaternion, euroc.evidence) == ("wxyz", "EuRoC: named columns")
    assert np.diff(euroc.stamps) == pytest.approx(0.05, abs=1e-6)


def test_paths_without_stamps_must_be_equally_long(tmp_path: Path) -> None:
    long = write_kitti(tmp_path / "long.txt", path_of(12, 0))
    short = write_kitti(tmp_path / "short.txt", path_of(11, 0))
    with pytest.raises(InvalidArgument, match="both must be KITTI's and equally long"):
        compare_trajectories(long, short)
    tum = write_tum(tmp_path / "tum.txt", path_of(12, 0))
    with pytest.raises(InvalidArgument, match="both must be KITTI's"):
        compare_trajectories(tum, long)


@pytest.mark.parametrize("delta", [1, 3])
@pytest.mark.parametrize("every", [True, False])
def test_pairs_are_all_or_follow_each_other_as_in_evo(delta: int, every: bool) -> None:
    metrics = pytest.importorskip("evo.core.metrics")
    trajectory = pytest.importorskip("evo.core.trajectory")
    truth, estimate = path_of(20, 0), path_of(20, 1)
    pair = [trajectory.PosePath3D(poses_se3=list(each)) for each in (truth, estimate)]
    for name, relation in (
        ("rpe_translation", metrics.PoseRelation.translation_part),
        ("rpe_rotation", metrics.PoseRelation.rotation_angle_deg),
    ):
        rpe = metrics.RPE(relation, delta=delta, delta_unit=metrics.Unit.frames, all_pairs=every)
        rpe.process_data(tuple(pair))
        ours = score_trajectory(labelled(truth), labelled(estimate), "none", delta, all_pairs=every)
        for statistic in ("rmse", "mean", "median", "std", "max"):
            expected = rpe.get_statistic(metrics.StatisticsType[statistic])
            found = float(ours["statistics"].sel(error=name, statistic=statistic))
            assert found == pytest.approx(expected, rel=1e-6), (name, statistic)
        held = ours[f"frame_{name}"].dropna("frame")
        assert len(held) == len(rpe.error)
        assert np.flatnonzero(np.isfinite(ours[f"frame_{name}"])).tolist() == list(
            range(0, 20 - delta, 1 if every else delta)
        )


class TestCommand:
    @pytest.fixture
    def files(self, tmp_path: Path) -> tuple[str, str]:
        truth = path_of(20, 0)
        return (
            str(write_tum(tmp_path / "truth.txt", truth, header="# t tx ty tz qx qy qz qw\n")),
            str(write_tum(tmp_path / "estimate.txt", moved(truth, 1))),
        )

    @staticmethod
    def execute(*arguments: str) -> int:
        import argparse

        from mut3r_analysis.cli.trajectory import add_parser

        parser = argparse.ArgumentParser()
        add_parser(parser.add_subparsers())
        args = parser.parse_args(["trajectory", *arguments])
        return int(args.run(args))

    def test_json_holds_scores_and_alignment(
        self, files: tuple[str, str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert self.execute(*files, "--align", "sim3", "--max-difference", "0.01", "--json") == 0
        found = json.loads(capsys.readouterr().out)
        expected = compare_trajectories(*files)
        assert found["n"] == 20
        for name in ("ate", "rpe_translation", "rpe_rotation"):
            assert found[name] == float(expected[name])
        assert found["alignment"]["kind"] == "sim3"
        assert found["alignment"]["scale"] == float(expected["alignment_scale"])
        assert np.shape(found["alignment"]["rotation"]) == (3, 3)

    def test_several_estimates_make_one_table(
        self, files: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        truth, estimate = files
        other = str(write_tum(tmp_path / "other.txt", moved(path_of(20, 3), 2)))
        assert self.execute(truth, estimate, other, "--delta", "2", "--all-pairs") == 0
        titles, *rows = capsys.readouterr().out.splitlines()
        assert titles.split()[:2] == ["estimate", "poses"]
        assert [row.split()[:2] for row in rows] == [["estimate.txt", "20"], ["other.txt", "20"]]
        expected = float(compare_trajectories(truth, other, delta=2)["rpe_rotation"])
        assert f"{expected:.6f}" in rows[1]
        assert self.execute(truth, estimate, other, "--json") == 0
        assert set(json.loads(capsys.readouterr().out)) == {estimate, other}

    def test_text_is_for_people(
        self, files: tuple[str, str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert self.execute(*files) == 0
        printed = capsys.readouterr().out
        assert "20 associated within 0.01 s" in printed
        assert "rmse" in printed
        assert "median" in printed
        assert "consecutive, 1 frame apart" in printed
        assert "RPE rotation" in printed
        assert "sim3" in printed


class TestDetectedOrder:
    @pytest.mark.parametrize("order", ["xyzw", "wxyz"])
    def test_columns_that_are_named_settle_it(self, tmp_path: Path, order: str) -> None:
        file = write_tum(tmp_path / "path.txt", moved(path_of(9, 0), 1), order)
        names = {"xyzw": "qx qy qz qw", "wxyz": "qw qx qy qz"}[order]
        file.write_text(f"# stamp tx ty tz {names}\n{file.read_text()}")
        assert detect_order(file) == (order, "columns named in the file")

    @pytest.mark.parametrize("order", ["xyzw", "wxyz"])
    def test_agreement_with_the_truth_settles_it(self, tmp_path: Path, order: str) -> None:
        poses = moved(path_of(30, 0), 1)
        file = write_tum(tmp_path / "path.txt", poses, order)
        assert detect_order(file, poses) == (order, "its rotations agree with the truth")

    def test_nothing_settles_it_and_nothing_is_guessed(self, tmp_path: Path) -> None:
        file = write_tum(tmp_path / "path.txt", moved(path_of(9, 0), 1), "wxyz")
        with pytest.raises(InvalidArgument, match="declare quaternion='wxyz' or"):
            detect_order(file)

    def test_evidence_that_contradicts_itself_is_shown(self, tmp_path: Path) -> None:
        poses = path_of(9, 0)
        poses = np.linalg.inv(poses[0]) @ poses
        file = write_tum(tmp_path / "path.txt", poses, "wxyz")
        file.write_text(f"# stamp tx ty tz qx qy qz qw\n{file.read_text()}")
        with pytest.raises(InvalidArgument, match="contradicts itself"):
            detect_order(file)
