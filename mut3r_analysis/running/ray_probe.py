"""A second look at the state of a frame, by the rays of its predicted camera without the image."""

from collections.abc import Collection

from torch import Tensor

from mut3r_analysis.attention.seam import SiteGate
from mut3r_analysis.backbones.geometry import focal_length, pose_matrix
from mut3r_analysis.backbones.protocol import Backbone
from mut3r_analysis.backbones.steps import Frame
from mut3r_analysis.motion.ray_map import RAY_MAP, camera_rays, disagreement, pooled


def ray_readings(
    backbone: Backbone,
    state: object,
    decoded: object,
    grid: tuple[int, int],
    pools: Collection[str],
    gate: SiteGate | None = None,
) -> dict[str, Tensor]:
    """Compare what the image says of depth with what the state alone predicts for its camera.

    Nothing is written.

    Parameters
    ----------
    backbone : Backbone
        That reads rays.
    state
        That the frame was read with.
    decoded
        Of the pass over the image.
    grid : (int, int)
    pools : collection of str
        Among :data:`~mut3r_analysis.motion.ray_map.POOLS`.
    gate : callable, optional
        Of the pass by rays.

    Returns
    -------
    dict of str to Tensor
        ``"ray_map(patches)"`` and so on: ``(batch, patch_row, patch_col)``, mean difference as a
        share of the depth.
    """
    seen = backbone.predict(decoded, ("pose", "depth"))
    assert seen.pose is not None
    assert seen.points_self is not None
    assert seen.confidence_self is not None
    height, width = seen.points_self.shape[1:3]
    rays = camera_rays(pose_matrix(seen.pose), focal_length(seen.points_self), (height, width))
    encoded = backbone.encode(Frame(ray_map=rays))
    guessed = backbone.predict(
        backbone.decode(backbone.enter(encoded, state), gate=gate), ("depth",)
    )
    assert guessed.points_self is not None
    assert guessed.confidence_self is not None
    found = disagreement(
        seen.points_self[..., 2],
        guessed.points_self[..., 2],
        seen.confidence_self,
        guessed.confidence_self,
    )
    return {f"{RAY_MAP}({pool})": pooled(*found, grid, pool) for pool in pools}
