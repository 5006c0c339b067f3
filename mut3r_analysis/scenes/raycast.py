"""The compiled renderer: rays against rooms, ellipsoids and boxes, with exact truth per pixel.

Everything is closed form: the nearest hit of the ray through a pixel's centre gives depth, normal
and instance; the hit point carried along by its object gives optical flow and scene flow. Textures
are functions of the coordinates on the surface in metres, so they move and turn with their object.
Each scale of a texture fades out where it becomes finer than a pixel, which is what keeps one
sample per pixel free of aliasing inside a surface; `supersample` also smooths the silhouettes.

All compiled functions that call each other live in this one file, because numba's cache looks for
changes in the file of the entry point only.
"""

import math

import numba
import numpy as np

OCTAVES = 4
PRIME_X, PRIME_Y, PRIME_Z = 73856093, 19349663, 83492791
"""Multipliers that spread lattice coordinates over the bits of a hash."""
NEAR = 1e-6
OCCLUDED = 1e-3
"""A point is hidden where something is nearer to the camera by more than this share."""
CORNER_SHADE, CORNER_WIDTH = 0.35, 0.45
"""Rooms darken by this share toward their edges, over this distance (m)."""


@numba.njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _scramble(value):  # type: ignore[no-untyped-def]
    """Turn the low 32 bits into 32 pseudo-random bits."""
    value &= 0xFFFFFFFF
    value = ((value ^ (value >> 16)) * 0x7FEB352D) & 0xFFFFFFFF
    value = ((value ^ (value >> 15)) * 0x846CA68B) & 0xFFFFFFFF
    return value ^ (value >> 16)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _noise(x, y, z, seed):  # type: ignore[no-untyped-def]
    """Two independent smooth noises in [-1, 1] at a point, from one lattice of 32-bit hashes."""
    fx, fy, fz = math.floor(x), math.floor(y), math.floor(z)
    ix, iy, iz = int(fx) * PRIME_X, int(fy) * PRIME_Y, int(fz) * PRIME_Z
    x, y, z = x - fx, y - fy, z - fz
    x, y, z = x * x * (3 - 2 * x), y * y * (3 - 2 * y), z * z * (3 - 2 * z)
    first = 0.0
    second = 0.0
    for dz in range(2):
        for dy in range(2):
            row = iy ^ iz ^ seed
            left = _scramble(ix ^ row)
            right = _scramble((ix + PRIME_X) ^ row)
            weight = (y if dy else 1.0 - y) * (z if dz else 1.0 - z)
            low, high = left & 0xFFFF, left >> 16
            first += weight * (low + x * ((right & 0xFFFF) - low))
            second += weight * (high + x * ((right >> 16) - high))
            iy += PRIME_Y
        iy -= 2 * PRIME_Y
        iz += PRIME_Z
    return first / 32767.5 - 1.0, second / 32767.5 - 1.0


@numba.njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _square_wave(x, blur):  # type: ignore[no-untyped-def]
    """Square wave of period 2 in [-1, 1], its edges as wide as `blur`, grey once they meet."""
    phase = x - 2.0 * math.floor(x * 0.5)
    ramp = (0.5 - abs(phase - 1.0)) * 2.0 / max(blur, 0.02)
    return min(max(ramp, -1.0), 1.0) * min(max(2.0 - blur, 0.0), 1.0)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _pattern(px, py, pz, axis, footprint, texture, seed):  # type: ignore[no-untyped-def]
    """Two mixing weights in [0, 1] at a surface point; `axis` is a flat surface's normal axis."""
    first = 0.0
    second = 0.0
    amplitude = 1.0
    frequency = 1.0 / texture[1]
    for octave in range(OCTAVES):
        visible = min(max(2.0 - 2.0 * footprint * frequency, 0.0), 1.0)
        if visible == 0.0:
            break
        one, two = _noise(px * frequency, py * frequency, pz * frequency, seed + octave)
        first += visible * amplitude * one
        second += visible * amplitude * two
        amplitude *= 0.75
        frequency *= 2.0
    if texture[0] > 0.0:
        frequency = 1.0 / texture[1]
        blur = footprint * frequency
        wave = 1.0
        if texture[0] == 1.0:
            if axis != 0:
                wave *= _square_wave(px * frequency, blur)
            if axis != 1:
                wave *= _square_wave(py * frequency, blur)
            if axis != 2:
                wave *= _square_wave(pz * frequency, blur)
        elif axis != 0:
            wave = _square_wave(px * frequency, blur)
        else:
            wave = _square_wave(pz * frequency, blur)
        first = 0.5 * first + 0.6 * wave
    first = 0.5 + 0.75 * texture[2] * first
    second = 0.35 + 0.6 * texture[2] * second
    return min(max(first, 0.0), 1.0), min(max(second, 0.0), 1.0)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _trace(origin, local_origin, dx, dy, dz, poses, room, shape, half_size):  # type: ignore[no-untyped-def]
    """Nearest hit along ``origin + t d``: t, instance, axis of the flat surface (-1: curved)."""
    nearest = np.inf
    axis = 0
    hit = 0
    t = (math.copysign(room[0], dx) - origin[0]) / dx if dx != 0.0 else np.inf
    if t < nearest:
        nearest = t
    t = (math.copysign(room[1], dy) - origin[1]) / dy if dy != 0.0 else np.inf
    if t < nearest:
        nearest, axis = t, 1
    t = (math.copysign(room[2], dz) - origin[2]) / dz if dz != 0.0 else np.inf
    if t < nearest:
        nearest, axis = t, 2
    for index in range(shape.shape[0]):
        if shape[index] < 0:
            continue
        pose = poses[index]
        size = half_size[index]
        lx = pose[0, 0] * dx + pose[1, 0] * dy + pose[2, 0] * dz
        ly = pose[0, 1] * dx + pose[1, 1] * dy + pose[2, 1] * dz
        lz = pose[0, 2] * dx + pose[1, 2] * dy + pose[2, 2] * dz
        ox, oy, oz = local_origin[index, 0], local_origin[index, 1], local_origin[index, 2]
        if shape[index] == 0:
            lx, ly, lz = lx / size[0], ly / size[1], lz / size[2]
            ox, oy, oz = ox / size[0], oy / size[1], oz / size[2]
            a = lx * lx + ly * ly + lz * lz
            b = lx * ox + ly * oy + lz * oz
            c = ox * ox + oy * oy + oz * oz - 1.0
            discriminant = b * b - a * c
            if discriminant <= 0.0:
                continue
            t = (-b - math.sqrt(discriminant)) / a
            if NEAR < t < nearest:
                nearest, hit, axis = t, index + 1, -1
        else:
            enter = -np.inf
            leave = np.inf
            face = 0
            for side in range(3):
                step = lx if side == 0 else (ly if side == 1 else lz)
                at = ox if side == 0 else (oy if side == 1 else oz)
                if step == 0.0:
                    if abs(at) > size[side]:
                        leave = -np.inf
                    continue
                close = (-math.copysign(size[side], step) - at) / step
                far = (math.copysign(size[side], step) - at) / step
                if close > enter:
                    enter, face = close, side
                leave = min(leave, far)
            if enter <= leave and NEAR < enter < nearest:
                nearest, hit, axis = enter, index + 1, face
    return nearest, hit, axis


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _surface(x, y, z, dx, dy, dz, hit, axis, poses, half_size):  # type: ignore[no-untyped-def]
    """Surface coordinates (m) and world normal, facing the ray, at a hit point."""
    if hit == 0:
        nx = -math.copysign(1.0, dx) if axis == 0 else 0.0
        ny = -math.copysign(1.0, dy) if axis == 1 else 0.0
        nz = -math.copysign(1.0, dz) if axis == 2 else 0.0
        return x, y, z, nx, ny, nz
    pose = poses[hit - 1]
    x, y, z = x - pose[0, 3], y - pose[1, 3], z - pose[2, 3]
    px = pose[0, 0] * x + pose[1, 0] * y + pose[2, 0] * z
    py = pose[0, 1] * x + pose[1, 1] * y + pose[2, 1] * z
    pz = pose[0, 2] * x + pose[1, 2] * y + pose[2, 2] * z
    if axis < 0:
        size = half_size[hit - 1]
        lx, ly, lz = px / size[0] ** 2, py / size[1] ** 2, pz / size[2] ** 2
        length = math.sqrt(lx * lx + ly * ly + lz * lz)
        lx, ly, lz = lx / length, ly / length, lz / length
    else:
        lx = math.copysign(1.0, px) if axis == 0 else 0.0
        ly = math.copysign(1.0, py) if axis == 1 else 0.0
        lz = math.copysign(1.0, pz) if axis == 2 else 0.0
    nx = pose[0, 0] * lx + pose[0, 1] * ly + pose[0, 2] * lz
    ny = pose[1, 0] * lx + pose[1, 1] * ly + pose[1, 2] * lz
    nz = pose[2, 0] * lx + pose[2, 1] * ly + pose[2, 2] * lz
    return px, py, pz, nx, ny, nz


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _shade(  # type: ignore[no-untyped-def]
    origin, dx, dy, dz, t, hit, axis, poses, room, half_size, textures, seeds, light, pixel, color
):
    """Add the colour seen along a ray to `color`; `pixel` is a pixel's width at unit depth."""
    x, y, z = origin[0] + t * dx, origin[1] + t * dy, origin[2] + t * dz
    px, py, pz, nx, ny, nz = _surface(x, y, z, dx, dy, dz, hit, axis, poses, half_size)
    stretch = math.sqrt(dx * dx + dy * dy + dz * dz)
    facing = abs(nx * dx + ny * dy + nz * dz) / stretch
    footprint = t * pixel / max(facing, 0.2)
    if hit > 0:
        surface = hit + 2
    elif axis != 1:
        surface = 0
    else:
        surface = 1 if dy > 0.0 else 2
    texture = textures[surface]
    first, second = _pattern(px, py, pz, axis, footprint, texture, seeds[surface])
    sx, sy, sz = light[1] - x, light[2] - y, light[3] - z
    toward = (sx * nx + sy * ny + sz * nz) / math.sqrt(sx * sx + sy * sy + sz * sz + 1e-12)
    shade = light[0] + (1.0 - light[0]) * max(toward, 0.0)
    if hit == 0:
        for side in range(3):
            if side != axis:
                at = x if side == 0 else (y if side == 1 else z)
                edge = room[side] - abs(at)
                shade *= 1.0 - CORNER_SHADE * math.exp(-edge / CORNER_WIDTH)
    clear = math.exp(-t * stretch / light[4])
    for channel in range(3):
        value = texture[3 + channel] + first * (texture[6 + channel] - texture[3 + channel])
        value += second * (texture[9 + channel] - value)
        color[channel] += light[5 + channel] + clear * (shade * value - light[5 + channel])


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _carry(x, y, z, hit, poses, later):  # type: ignore[no-untyped-def]
    """Where a world point that belongs to instance `hit` is at another frame."""
    if hit == 0:
        return x, y, z
    a, b = poses[hit - 1], later[hit - 1]
    # a resting object's points stay exactly where they are
    same = True
    for row in range(3):
        for col in range(4):
            same = same and a[row, col] == b[row, col]
    if same:
        return x, y, z
    x, y, z = x - a[0, 3], y - a[1, 3], z - a[2, 3]
    px = a[0, 0] * x + a[1, 0] * y + a[2, 0] * z
    py = a[0, 1] * x + a[1, 1] * y + a[2, 1] * z
    pz = a[0, 2] * x + a[1, 2] * y + a[2, 2] * z
    return (
        b[0, 0] * px + b[0, 1] * py + b[0, 2] * pz + b[0, 3],
        b[1, 0] * px + b[1, 1] * py + b[1, 2] * pz + b[1, 3],
        b[2, 0] * px + b[2, 1] * py + b[2, 2] * pz + b[2, 3],
    )


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _project(x, y, z, camera, focal, center_x, center_y):  # type: ignore[no-untyped-def]
    """Pixel and depth of a world point; NaN pixels where it is not in front of the camera."""
    x, y, z = x - camera[0, 3], y - camera[1, 3], z - camera[2, 3]
    depth = camera[0, 2] * x + camera[1, 2] * y + camera[2, 2] * z
    if depth <= NEAR:
        return np.nan, np.nan, depth
    across = camera[0, 0] * x + camera[1, 0] * y + camera[2, 0] * z
    down = camera[0, 1] * x + camera[1, 1] * y + camera[2, 1] * z
    return center_x + focal * across / depth, center_y + focal * down / depth, depth


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _fill_origins(camera, poses, out):  # type: ignore[no-untyped-def]
    for index in range(poses.shape[0]):
        for axis in range(3):
            total = 0.0
            for row in range(3):
                total += poses[index, row, axis] * (camera[row, 3] - poses[index, row, 3])
            out[index, axis] = total


@numba.njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _see(u, v, camera, origin, poses, origins, room, shape, half_size):  # type: ignore[no-untyped-def]
    """Direction of the ray through ``(u, v)`` at unit depth, and what `_trace` finds along it."""
    dx = camera[0, 0] * u + camera[0, 1] * v + camera[0, 2]
    dy = camera[1, 0] * u + camera[1, 1] * v + camera[1, 2]
    dz = camera[2, 0] * u + camera[2, 1] * v + camera[2, 2]
    t, hit, axis = _trace(origin, origins, dx, dy, dz, poses, room, shape, half_size)
    return dx, dy, dz, t, hit, axis


@numba.njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _paint(  # type: ignore[no-untyped-def]
    u, v, ray, camera, origin, poses, origins, room, shape, half_size, textures, seeds, light,
    focal, supersample, color, image, clip, frame, row, col,
):  # fmt: skip
    """Write a pixel's colour: the mean of its samples, or what its one `ray` sees."""
    color[:] = 0.0
    for sample in range(supersample * supersample):
        dx, dy, dz, t, hit, axis = ray
        if supersample > 1:
            shift_x = (sample % supersample + 0.5) / supersample - 0.5
            shift_y = (sample // supersample + 0.5) / supersample - 0.5
            dx, dy, dz, t, hit, axis = _see(
                u + shift_x / focal, v + shift_y / focal, camera, origin, poses, origins,
                room, shape, half_size,
            )  # fmt: skip
        _shade(
            origin, dx, dy, dz, t, hit, axis, poses, room, half_size, textures, seeds, light,
            1.0 / (focal * supersample), color,
        )  # fmt: skip
    for channel in range(3):
        value = color[channel] / (supersample * supersample)
        image[clip, frame, row, col, channel] = np.uint8(255.0 * min(max(value, 0.0), 1.0) + 0.5)


@numba.njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _normal(x, y, z, ray, camera, poses, half_size, out):  # type: ignore[no-untyped-def]
    """Write the normal, in the camera's axes, of the surface that a ray meets at a point."""
    dx, dy, dz, _, hit, axis = ray
    _, _, _, nx, ny, nz = _surface(x, y, z, dx, dy, dz, hit, axis, poses, half_size)
    for side in range(3):
        out[side] = camera[0, side] * nx + camera[1, side] * ny + camera[2, side] * nz


@numba.njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _moved(x, y, z, qx, qy, qz, camera, focal, center_x, center_y):  # type: ignore[no-untyped-def]
    """How far apart, px, two points of the world are in another frame's image."""
    u, v, _ = _project(qx, qy, qz, camera, focal, center_x, center_y)
    rest_u, rest_v, _ = _project(x, y, z, camera, focal, center_x, center_y)
    return math.hypot(u - rest_u, v - rest_v)


@numba.njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _look_back(  # type: ignore[no-untyped-def]
    x, y, z, hit, poses, camera, earlier, origins, room, shape, half_size, focal, width, height
):
    """Where a point was in the previous frame, px, and whether it was seen there."""
    qx, qy, qz = _carry(x, y, z, hit, poses, earlier)
    u, v, far = _project(qx, qy, qz, camera, focal, (width - 1) / 2.0, (height - 1) / 2.0)
    if not (-0.5 <= u <= width - 0.5 and -0.5 <= v <= height - 0.5):
        return u, v, False
    dx, dy, dz = (qx - camera[0, 3]) / far, (qy - camera[1, 3]) / far, (qz - camera[2, 3]) / far
    t, _, _ = _trace(camera[:, 3], origins, dx, dy, dz, earlier, room, shape, half_size)
    return u, v, t >= 1.0 - OCCLUDED


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _render_clip(  # type: ignore[no-untyped-def]
    clip, cameras, objects, room, focal, shape, half_size, textures, seeds, light,
    supersample, threshold,
    image, depth, instance, motion, backward, visible, forward, scene_flow, normal,
):  # fmt: skip
    _, frames, height, width = depth.shape
    center_x, center_y = (width - 1) / 2.0, (height - 1) / 2.0
    color = np.empty(3)
    origins = np.empty((frames, shape.shape[0], 3))
    for frame in range(frames):
        _fill_origins(cameras[frame], objects[frame], origins[frame])
    for frame in range(frames):
        camera, poses, local = cameras[frame], objects[frame], origins[frame]
        origin = camera[:, 3]
        before = max(frame - 1, 0)
        other = frame + 1 if frame + 1 < frames else before
        camera_then, poses_then = cameras[other], objects[other]
        camera_before, poses_before = cameras[before], objects[before]
        local_before = origins[before]
        for row in range(height):
            for col in range(width):
                u, v = (col - center_x) / focal, (row - center_y) / focal
                ray = _see(u, v, camera, origin, poses, local, room, shape, half_size)
                dx, dy, dz, t, hit, _ = ray
                depth[clip, frame, row, col] = t
                instance[clip, frame, row, col] = hit
                _paint(
                    u, v, ray, camera, origin, poses, local, room, shape, half_size, textures,
                    seeds, light, focal, supersample, color, image, clip, frame, row, col,
                )  # fmt: skip
                x, y, z = origin[0] + t * dx, origin[1] + t * dy, origin[2] + t * dz
                if normal.shape[0]:
                    _normal(x, y, z, ray, camera, poses, half_size, normal[clip, frame, row, col])
                qx, qy, qz = _carry(x, y, z, hit, poses, poses_then)
                motion[clip, frame, row, col] = hit > 0 and threshold < _moved(
                    x, y, z, qx, qy, qz, camera_then, focal, center_x, center_y
                )
                if forward.shape[0]:
                    forward[clip, frame, row, col] = np.nan
                    scene_flow[clip, frame, row, col] = np.nan
                    if other > frame:
                        end_x, end_y, _ = _project(
                            qx, qy, qz, camera_then, focal, center_x, center_y
                        )
                        forward[clip, frame, row, col, 0] = end_x - col
                        forward[clip, frame, row, col, 1] = end_y - row
                        scene_flow[clip, frame, row, col, 0] = qx - x
                        scene_flow[clip, frame, row, col, 1] = qy - y
                        scene_flow[clip, frame, row, col, 2] = qz - z
                if backward.shape[0]:
                    if frame == 0:
                        backward[clip, frame, row, col] = np.nan
                        visible[clip, frame, row, col] = False
                    else:
                        was_x, was_y, visible[clip, frame, row, col] = _look_back(
                            x, y, z, hit, poses, camera_before, poses_before,
                            local_before, room, shape, half_size, focal, width, height,
                        )  # fmt: skip
                        backward[clip, frame, row, col, 0] = was_x - col
                        backward[clip, frame, row, col, 1] = was_y - row


@numba.njit(cache=True, nogil=True, error_model="numpy")
def render_clips(  # type: ignore[no-untyped-def]
    cameras, objects, room, tangent, shape, half_size, textures, seeds, light,
    supersample, threshold,
    image, depth, instance, motion, backward, visible, forward, scene_flow, normal,
):  # fmt: skip
    """Fill the output arrays, each `(clip, frame, y, x, ...)`; those of length 0 are left out.

    `backward` and `visible` go together, as do `forward` and `scene_flow`. Frames without a
    previous (next) frame have NaN there.
    """
    for clip in range(depth.shape[0]):
        _render_clip(
            clip, cameras[clip], objects[clip], room[clip],
            depth.shape[3] / (2.0 * tangent[clip]), shape[clip], half_size[clip],
            textures[clip], seeds[clip], light[clip], supersample, threshold,
            image, depth, instance, motion, backward, visible, forward, scene_flow, normal,
        )  # fmt: skip
