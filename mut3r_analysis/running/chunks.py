"""How the arrays of a run are cut into chunks, files and blocks."""

import math

from mut3r_analysis.running.schema import KEY_FRAME, Schema, Variable

BLOCK_BYTES = 32 * 2**20
"""A block holds as many frames as fit here (at least one), so that buffers stay small."""

MOST_FRAMES = 32
_WHOLE_BLOCK_CHUNK = 32 * 2**10
_GROWING_CHUNK = 256
"""Tokens of a growing memory in one chunk."""
_MAP_BYTES = 16 * 2**20
_FILE_BYTES = 2**20
CHECKSUM = 4


def block_length(schema: Schema) -> int:
    """Frames per block; the blocks of a run are nearly equal in length."""
    per_frame = sum(
        frame_bytes(variable)
        for group in schema.values()
        for variable in group.variables.values()
        if variable.values is None
    )
    frames = max(len(group.frames) for group in schema.values())
    longest = min(MOST_FRAMES, max(1, BLOCK_BYTES // max(per_frame, 1)))
    return math.ceil(frames / math.ceil(frames / longest))


def frame_bytes(variable: Variable) -> int:
    """Bytes of one frame of a variable."""
    return math.prod(variable.shape[1:]) * variable.dtype.itemsize


def chunking(
    variable: Variable, block: int, dense: bool
) -> tuple[tuple[int, ...], tuple[int, ...] | None]:
    """Chunk and shard shapes of a variable.

    Small variables are chunked by block, larger ones by frame within a shard per block, and whole
    maps by head, or by layer where heads are small: without shards, which are put together in
    memory before they are written. A group that holds only some frames is not sharded, since its
    rows do not arrive in whole blocks.
    """
    if variable.values is not None:
        return variable.shape, None
    if variable.grows:
        return _growing_chunks(variable), None
    size = frame_bytes(variable)
    if is_large_map(variable):
        heads, *rest = variable.shape[2:]
        by_head = math.prod(rest) * variable.dtype.itemsize >= _FILE_BYTES
        return (1, 1, 1 if by_head else heads, *rest), None
    shape = variable.shape[1:]
    if not dense or size > _MAP_BYTES:
        return (1, *shape), None
    block = min(block, variable.shape[0])
    if size <= _WHOLE_BLOCK_CHUNK:
        return (block, *shape), None
    return (1, *shape), (block, *shape)


def _growing_chunks(variable: Variable) -> tuple[int, ...]:
    """Chunks of a variable of which only a part is filled; those that stay empty cost nothing."""
    shape = list(variable.shape)
    shape[0] = 1
    for axis, dim in enumerate(variable.dims):
        if dim in variable.grows:
            per_place = shape[axis + 1] if dim == KEY_FRAME else 1
            shape[axis] = max(1, min(_GROWING_CHUNK // per_place, shape[axis]))
    return tuple(shape)


def is_large_map(variable: Variable) -> bool:
    """Whether a variable holds whole maps, each head or layer of which is a file."""
    if variable.grows:
        return False
    return frame_bytes(variable) > _MAP_BYTES and variable.dims[1:3] == ("layer", "head")


def stored_bytes(variable: Variable, block: int, dense: bool) -> int:
    """Bytes that the chunks of a variable take on disk (nothing is compressed)."""
    chunks, shards = chunking(variable, block, dense)
    per_axis = [math.ceil(n / c) for n, c in zip(variable.shape, chunks, strict=True)]
    stored = math.prod(per_axis) * (math.prod(chunks) * variable.dtype.itemsize + CHECKSUM)
    if shards is not None:
        count = math.prod(math.ceil(n / s) for n, s in zip(variable.shape, shards, strict=True))
        inner = math.prod(s // c for s, c in zip(shards, chunks, strict=True))
        stored += count * (16 * inner + 4)
    return stored
