import pytest

from mut3r_analysis.scenes import load_scene
from mut3r_analysis.sequences.layouts import export_sequence

SIZE = (48, 32)


@pytest.fixture(scope="session")
def scene():
    """A sequence with exact truth in every variable; do not change it."""
    return load_scene("orbit-03").render(SIZE).isel(frame=slice(0, 6))


@pytest.fixture
def exported(scene, tmp_path):
    """Function that writes the scene in a layout and returns its root and its name."""

    def export(layout, name=None, **changes):
        root = tmp_path / layout
        return root, export_sequence(scene.assign(**changes), root, layout, name=name)

    return export
