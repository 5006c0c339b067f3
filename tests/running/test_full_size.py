"""The released size, with random weights, on two real frames."""

import numpy as np
import pytest

import mut3r_analysis as m3
from mut3r_analysis.attention import DECODER_KINDS


@pytest.mark.slow
def test_the_released_model_runs_with_all_statistics(shared, tmp_path):
    backbone = m3.load_backbone("random:512-dpt")
    sequence = m3.open_sequence(shared / "frames" / "walking_woman", stop=2)
    capture = m3.Capture()
    plan = m3.plan(backbone, sequence, capture=capture)
    out = tmp_path / "run.zarr"
    run = m3.run(backbone, sequence, capture=capture, progress=False, out=out)
    stored = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    assert stored == pytest.approx(plan.stored_bytes, rel=0.05)
    height, width = backbone.preparation.shape(sequence.sizes["y"], sequence.sizes["x"])
    tokens = 1 + height * width // 16**2
    shapes = {
        "image_self": (2, 12, 12, tokens),
        "image_to_state": (2, 12, 12, tokens),
        "state_self": (2, 12, 16, 768),
        "state_to_image": (2, 12, 16, 768),
    }
    for kind in DECODER_KINDS:
        assert run[f"attention/{kind}/entropy"].shape == shapes[kind]
        for values in run[f"attention/{kind}"].data_vars.values():
            assert np.isfinite(values).all()
    assert np.isfinite(run["prediction/points_world"]).all()
