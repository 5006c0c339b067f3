"""What a frame leaves is brought to the host whole, wherever it was made."""

import numpy as np
import pytest
import torch

from mut3r_analysis.running.recording import on_host


def values(device: str) -> dict:
    draw = torch.Generator().manual_seed(0)
    numbers = torch.randn(3, 4, 5, generator=draw)
    tensors = {
        "float32": numbers,
        "turned": numbers.transpose(0, 2),
        "float16": numbers[0].half(),
        "int64": torch.arange(7),
        "flags": numbers > 0,
        "one": torch.tensor(2.5, dtype=torch.float64),
        "none": torch.empty(0, 3),
    }
    return {
        "prediction": {name: tensor.to(device) for name, tensor in tensors.items()},
        "timing": {"seconds": np.arange(2.0)},
        "state": {"flag": torch.tensor([True]).to(device)},
    }


NEEDS_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.mark.parametrize(
    "device", ["cpu", pytest.param("cuda", marks=(pytest.mark.gpu, NEEDS_CUDA))]
)
def test_every_value_comes_as_it_was(device):
    expected, found = values("cpu"), on_host(values(device))
    for path, group in expected.items():
        assert list(found[path]) == list(group)
        for name, value in group.items():
            own = np.asarray(value)
            assert found[path][name].dtype == own.dtype
            np.testing.assert_array_equal(found[path][name], own)
