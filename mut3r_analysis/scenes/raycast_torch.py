"""The renderer of `raycast` once more, batched in torch, for any device.

The same closed forms over whole images at once: everything is `(view, ray, ...)`, where a view is
one frame of one clip. It renders what training asks for, with one ray per pixel; tests hold the two
renderers to the same numbers.
"""

import math

import torch
from torch import Tensor

from mut3r_analysis.scenes.arrays import SceneArrays, image_size
from mut3r_analysis.scenes.batches import MOTION_THRESHOLD, intrinsics_of
from mut3r_analysis.scenes.raycast import (
    CORNER_SHADE,
    CORNER_WIDTH,
    NEAR,
    OCCLUDED,
    OCTAVES,
    PRIME_X,
    PRIME_Y,
    PRIME_Z,
)

_BITS = 0xFFFFFFFF


def _scramble(value: Tensor) -> Tensor:
    value = value & _BITS
    value = ((value ^ (value >> 16)) * 0x7FEB352D) & _BITS
    value = ((value ^ (value >> 15)) * 0x846CA68B) & _BITS
    return value ^ (value >> 16)


def _noise(point: Tensor, seed: Tensor) -> tuple[Tensor, Tensor]:
    """Two smooth noises in [-1, 1] at points `(..., xyz)`."""
    base = point.floor()
    lattice = base.long()
    x, y, z = (lambda f: f * f * (3 - 2 * f))(point - base).unbind(-1)
    first = torch.zeros_like(x)
    second = torch.zeros_like(x)
    ix = lattice[..., 0] * PRIME_X
    for dz in range(2):
        for dy in range(2):
            row = ((lattice[..., 1] + dy) * PRIME_Y) ^ ((lattice[..., 2] + dz) * PRIME_Z) ^ seed
            left, right = _scramble(ix ^ row), _scramble((ix + PRIME_X) ^ row)
            weight = (y if dy else 1 - y) * (z if dz else 1 - z)
            low, high = left & 0xFFFF, left >> 16
            first += weight * (low + x * ((right & 0xFFFF) - low))
            second += weight * (high + x * ((right >> 16) - high))
    return first / 32767.5 - 1, second / 32767.5 - 1


def _square_wave(x: Tensor, blur: Tensor) -> Tensor:
    phase = x - 2 * torch.floor(x * 0.5)
    ramp = (0.5 - (phase - 1).abs()) * 2 / blur.clamp(min=0.02)
    return ramp.clamp(-1, 1) * (2 - blur).clamp(0, 1)


def _pattern(
    point: Tensor, axis: Tensor, footprint: Tensor, texture: Tensor, seed: Tensor
) -> tuple[Tensor, Tensor]:
    first = torch.zeros_like(footprint)
    second = torch.zeros_like(footprint)
    amplitude = 1.0
    base = 1 / texture[..., 1]
    for octave in range(OCTAVES):
        frequency = base * 2.0**octave
        visible = (2 - 2 * footprint * frequency).clamp(0, 1) * amplitude
        one, two = _noise(point * frequency[..., None], seed + octave)
        first += visible * one
        second += visible * two
        amplitude *= 0.75
    waves = _square_wave(point * base[..., None], (footprint * base)[..., None])
    one = torch.ones_like(base)
    checker = one
    for side in range(3):
        checker = checker * torch.where(axis == side, one, waves[..., side])
    stripes = torch.where(axis == 0, waves[..., 2], waves[..., 0])
    kind = texture[..., 0]
    wave = torch.where(kind == 1, checker, stripes)
    first = torch.where(kind > 0, 0.5 * first + 0.6 * wave, first)
    contrast = texture[..., 2]
    return (0.5 + 0.75 * contrast * first).clamp(0, 1), (0.35 + 0.6 * contrast * second).clamp(0, 1)


class _Views:
    """Every frame of every clip as a view, with the geometry it sees."""

    def __init__(
        self, scenes: SceneArrays, frames: int, size: tuple[int, int], device: torch.device
    ) -> None:
        def real(array: object) -> Tensor:
            return torch.as_tensor(array).to(device=device, dtype=torch.float64)

        def spread(array: Tensor) -> Tensor:
            return array.repeat_interleave(frames, dim=0)

        cameras, objects = scenes.camera_poses(frames), scenes.object_poses(frames)
        self.camera = real(cameras).flatten(0, 1)
        self.poses = real(objects).flatten(0, 1)
        self.room = spread(real(scenes.room))
        self.half_size = spread(real(scenes.half_size))
        self.shape = spread(torch.as_tensor(scenes.shape).to(device))
        self.texture = spread(real(scenes.texture))
        self.seed = spread(torch.as_tensor(scenes.texture_seed).to(device))
        self.light = spread(real(scenes.light))
        width, height = size
        self.focal = width / (2 * spread(real(scenes.tangent)))
        self.center = real([(width - 1) / 2, (height - 1) / 2])
        places = torch.arange(width * height, device=device)
        self.pixels = torch.stack([places % width, places // width], dim=-1).double()

    def trace(self, view: Tensor, direction: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Nearest hit of rays `(view, ray, xyz)` from the given views' cameras."""
        origin = self.camera[view, :, 3]
        room, shape = self.room[view], self.shape[view]
        wall = torch.copysign(room[:, None].expand_as(direction), direction) - origin[:, None]
        distance = torch.where(direction == 0, math.inf, wall / direction)
        nearest, axis = distance.min(dim=-1)
        hit = torch.zeros_like(axis)
        for index in range(shape.shape[1]):
            pose, size = self.poses[view, index], self.half_size[view, index]
            at = ((origin - pose[..., 3])[:, None] @ pose[..., :3]).expand_as(direction)
            step = direction @ pose[..., :3]
            scaled_at, scaled_step = at / size[:, None], step / size[:, None]
            a = (scaled_step**2).sum(-1)
            b = (scaled_step * scaled_at).sum(-1)
            c = (scaled_at**2).sum(-1) - 1
            discriminant = b * b - a * c
            sphere = (-b - discriminant.clamp(min=0).sqrt()) / a
            sphere = torch.where(discriminant > 0, sphere, math.inf)

            limit = torch.copysign(size[:, None].expand_as(step), step)
            parallel = step == 0
            inside = at.abs() <= size[:, None]
            close = torch.where(parallel, -math.inf, (-limit - at) / step)
            far = torch.where(parallel, math.inf, (limit - at) / step)
            enter, face = close.max(dim=-1)
            meets = (enter <= far.min(dim=-1).values) & (inside | ~parallel).all(-1)
            box = torch.where(meets, enter, math.inf)

            is_sphere = (shape[:, index] == 0)[:, None]
            t = torch.where(is_sphere, sphere, box)
            take = (t > NEAR) & (t < nearest) & (shape[:, index] >= 0)[:, None]
            nearest = torch.where(take, t, nearest)
            hit = torch.where(take, index + 1, hit)
            axis = torch.where(take, torch.where(is_sphere, -1, face), axis)
        return nearest, hit, axis

    def surface(
        self, point: Tensor, direction: Tensor, hit: Tensor, axis: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Surface coordinates and world normals `(view, ray, xyz)` at hit points."""
        sides = torch.arange(3, device=axis.device)
        flat = (axis[..., None] == sides).to(point.dtype)
        local, normal = point, -torch.copysign(flat, direction) * flat
        for index in range(self.shape.shape[1]):
            pose, size = self.poses[:, index], self.half_size[:, index, None]
            inner = (point - pose[:, None, :, 3]) @ pose[..., :3]
            curved = inner / size**2
            curved = curved / curved.norm(dim=-1, keepdim=True)
            turned = torch.where(axis[..., None] < 0, curved, torch.copysign(flat, inner) * flat)
            mine = (hit == index + 1)[..., None]
            local = torch.where(mine, inner, local)
            normal = torch.where(mine, turned @ pose[..., :3].mT, normal)
        return local, normal

    def shade(
        self, point: Tensor, direction: Tensor, t: Tensor, hit: Tensor, axis: Tensor
    ) -> Tensor:
        """Colours `(view, ray, rgb)` in [0, 1] at the points that rays meet at `t`."""
        local, normal = self.surface(point, direction, hit, axis)
        stretch = direction.norm(dim=-1)
        facing = (normal * direction).sum(-1).abs() / stretch
        footprint = t * (1 / self.focal)[:, None] / facing.clamp(min=0.2)
        level = torch.where(direction[..., 1] > 0, 1, 2)
        index = torch.where(hit > 0, hit + 2, torch.where(axis == 1, level, 0))
        texture = self.texture.gather(1, index[..., None].expand(-1, -1, self.texture.shape[-1]))
        first, second = _pattern(local, axis, footprint, texture, self.seed.gather(1, index))
        light = self.light[:, None]
        toward = light[..., 1:4] - point
        toward = (toward * normal).sum(-1) / ((toward**2).sum(-1) + 1e-12).sqrt()
        shade = light[..., 0] + (1 - light[..., 0]) * toward.clamp(min=0)
        edge = 1 - CORNER_SHADE * torch.exp(-(self.room[:, None] - point.abs()) / CORNER_WIDTH)
        sides = torch.arange(3, device=axis.device)
        edge = torch.where(axis[..., None] == sides, 1.0, edge).prod(-1)
        shade = torch.where(hit == 0, shade * edge, shade)
        clear = torch.exp(-t * stretch / light[..., 4])
        one, two, three = texture[..., 3:12].unflatten(-1, (3, 3)).unbind(-2)
        color = one + first[..., None] * (two - one)
        color = color + second[..., None] * (three - color)
        fog = light[..., 5:8]
        return (fog + clear[..., None] * (shade[..., None] * color - fog)).clamp(0, 1)

    def carry(self, point: Tensor, hit: Tensor, other: Tensor) -> Tensor:
        """Where the points of this view's instances are in another view of the same clip."""
        moved = point
        for index in range(self.shape.shape[1]):
            here, there = self.poses[:, index], self.poses[other, index]
            same = (here == there).all(-1).all(-1)[:, None]
            local = (point - here[:, None, :, 3]) @ here[..., :3]
            carried = local @ there[..., :3].mT + there[:, None, :, 3]
            mine = ((hit == index + 1) & ~same)[..., None]
            moved = torch.where(mine, carried, moved)
        return moved

    def rays(self) -> Tensor:
        """Directions `(view, ray, xyz)` through the pixels' centres."""
        flat = (self.pixels - self.center) / self.focal[:, None, None]
        local = torch.cat([flat, torch.ones_like(flat[..., :1])], dim=-1)
        return local @ self.camera[..., :3].mT

    def look(self, point: Tensor, hit: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels where points are in other views of their clip, and whether they are seen there."""
        there = self.carry(point, hit, other)
        pixels, depth = self.project(there, other)
        toward = (there - self.camera[other][:, None, :, 3]) / depth[..., None]
        nearest, _, _ = self.trace(other, toward)
        inside = ((pixels >= -0.5) & (pixels <= 2 * self.center + 0.5)).all(-1)
        return pixels, inside & (nearest >= 1 - OCCLUDED)

    def project(self, point: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels `(view, ray, uv)` and depths of world points in other views."""
        camera = self.camera[other]
        local = (point - camera[:, None, :, 3]) @ camera[..., :3]
        depth = local[..., 2]
        pixels = self.center + self.focal[:, None, None] * local[..., :2] / depth[..., None]
        return torch.where(depth[..., None] > NEAR, pixels, math.nan), depth


def render_arrays_torch(
    scenes: SceneArrays,
    frames: int,
    size: tuple[int, int] = (64, 48),
    *,
    device: str | torch.device = "cpu",
) -> dict[str, Tensor]:
    """Render scenes with torch; arguments and result as of `render_arrays` with its defaults.

    In float64; the truth equals the compiled renderer's to rounding. All clips are rendered at
    once, so their number is bounded by the device's memory.
    """
    width, height = image_size("size", size)
    views = _Views(scenes, frames, (width, height), torch.device(device))
    here = torch.arange(len(views.camera), device=device)
    frame = here % frames
    direction = views.rays()
    depth, hit, axis = views.trace(here, direction)
    point = views.camera[:, None, :, 3] + depth[..., None] * direction
    following = torch.where(frame + 1 < frames, here + 1, (here - 1).clamp(min=0))
    end, _ = views.project(views.carry(point, hit, following), following)
    rest, _ = views.project(point, following)
    residual = (end - rest).norm(dim=-1)
    first = (frame == 0)[:, None]
    was, seen = views.look(point, hit, (here - 1).clamp(min=0))
    image = views.shade(point, direction, depth, hit, axis)
    result = {
        "image": (255 * image + 0.5).to(torch.uint8),
        "depth": depth,
        "instance": hit,
        "motion_mask": (residual > MOTION_THRESHOLD * width) & (frames > 1),
        "flow_previous": torch.where(first[..., None], math.nan, was - views.pixels),
        "visible_previous": seen & ~first,
    }
    clips = len(scenes)
    shaped = {
        name: each.reshape(clips, frames, height, width, *each.shape[2:])
        for name, each in result.items()
    }
    pose = torch.eye(4, device=device, dtype=torch.float64).repeat(len(views.camera), 1, 1)
    pose[:, :3] = views.camera
    shaped["pose"] = pose.reshape(clips, frames, 4, 4)
    intrinsics = torch.as_tensor(intrinsics_of(scenes.tangent, frames, (width, height)))
    shaped["intrinsics"] = intrinsics.to(device)
    return shaped
