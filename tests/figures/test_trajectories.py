"""Several estimates in one figure: what is drawn is what was scored."""

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from mut3r_analysis.cli import main
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.figures import trajectories
from mut3r_analysis.metrics import compare_trajectories

RNG = np.random.default_rng(0)
# Widest along z, then along x; y hardly changes.
TRUE = np.cumsum(RNG.normal(size=(30, 3)), axis=0) * [1, 0.01, 4]


def write(path: Path, centres: np.ndarray) -> str:
    stamps = 100 + np.arange(len(centres))[:, None] / 10
    turns = Rotation.from_rotvec(0.1 * TRUE[: len(centres)]).as_quat()
    np.savetxt(path, np.hstack([stamps, centres, turns]))
    return str(path)


@pytest.fixture
def files(tmp_path):
    noise = np.random.default_rng(1).normal(size=TRUE.shape)
    return [
        write(tmp_path / "truth.txt", TRUE), write(tmp_path / "good.txt", TRUE / 2 + 0.01 * noise),
        write(tmp_path / "bad.txt", TRUE / 2 + 0.5 * noise),
    ]  # fmt: skip


def test_aligned_paths_and_their_errors_are_drawn(files):
    truth, *estimates = files
    scores = {Path(each).stem: compare_trajectories(truth, each) for each in estimates}
    plan, error = trajectories(scores).axes
    true, good, bad = plan.lines
    np.testing.assert_array_equal(true.get_xydata(), TRUE[:, [0, 2]])
    assert (plan.get_xlabel(), plan.get_ylabel()) == ("x (m)", "z (m)")
    # Half the size in the file, and as large as the truth here.
    np.testing.assert_allclose(good.get_xydata(), TRUE[:, [0, 2]], atol=0.2)
    names = [text.get_text() for text in plan.get_legend().get_texts()]
    assert names[1] == f"good, {float(scores['good']['ate']):.3g} m"
    seconds, distance = error.lines[1].get_data()
    np.testing.assert_allclose(seconds, np.arange(30) / 10, atol=1e-9)
    np.testing.assert_array_equal(distance, scores["bad"]["frame_ate"])
    assert bad.get_color() == error.lines[1].get_color() != good.get_color()
    gaps = np.linalg.norm(scores["bad"]["position"] - scores["bad"]["true_position"], axis=1)
    np.testing.assert_allclose(distance, gaps, atol=1e-12)


def test_the_command_draws_them(files, tmp_path, capsys):
    assert main(["trajectory", *files, "--plot", str(tmp_path / "new" / "paths.svg")]) == 0
    drawn = (tmp_path / "new" / "paths.svg").read_text(encoding="utf-8")
    assert "<svg" in drawn
    assert "good.txt" in capsys.readouterr().out
    assert main(["trajectory", *files, "--plot", str(tmp_path / "paths.gif")]) == 1
    assert "must be among png, pdf, svg" in capsys.readouterr().err


def test_paths_that_do_not_belong_together_are_refused(files):
    truth, good, bad = files
    with pytest.raises(InvalidArgument, match="different truths"):
        trajectories({"a": compare_trajectories(truth, good), "b": compare_trajectories(bad, good)})
    with pytest.raises(InvalidArgument, match="no trajectories"):
        trajectories({})
    with pytest.raises(InvalidArgument, match="has no true_position"):
        trajectories({"a": compare_trajectories(truth, good).drop_vars("true_position")})
