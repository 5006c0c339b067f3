"""From a frame at source size to the pixels a backbone sees, by the official rules.

Every prepared pixel grid is the source seen through one resize and, but for the rule ``"resize"``,
one central crop (or margin, under ``"pad"``). :class:`Preparation` applies that geometry to pixels
(with the official resampling filters), to depth and masks (nearest neighbour, so that no value is
invented) and to intrinsics.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from PIL import Image

from mut3r_analysis.errors import InvalidArgument

Rule = Literal["crop", "resize", "window", "cover", "width", "pad"]

SQUARE_SIZE = 224
"""The one size whose official rule gives a square: short side to 224, then its centre."""


WINDOW_FROM = 512
"""Long edge, px, of the frame out of whose middle the rule "window" takes its square."""


class Geometry(NamedTuple):
    """Where a source goes: all lengths in pixels, pairs as (height, width).

    `source` is the part of it that is used, from its top left corner. Where an offset is negative
    there is a margin of so many pixels.
    """

    source: tuple[int, int]
    resized: tuple[int, int]
    prepared: tuple[int, int]
    offset: tuple[int, int]

    def scale(self) -> np.ndarray:
        """Give prepared pixels per source pixel, along (y, x)."""
        return np.divide(self.resized, self.source)


@dataclass(frozen=True)
class Preparation:
    """The official resize and crop of CUT3R, for any patch size.

    The long edge is brought to `size` (Lanczos when shrinking, bicubic otherwise, sides rounded
    half to even), then both sides are brought to multiples of `patch`: by a central crop or by a
    second, slightly anisotropic Lanczos resize. A frame that is square after the first resize
    becomes 4:3. At size 224 the short side is brought to 224 instead and the result is square.

    Pose evaluation upstream uses ``"crop"``, depth evaluation ``"resize"``. Spann3R's rule is
    ``"cover"``: an odd last row or column is left out, the frame is brought just to cover a square
    of `size` (always Lanczos, sides rounded down), and the centre of it is taken. ``"window"`` is
    how released multi-view evaluations feed models of 224 px: the long edge becomes 512, and a
    square of `size` is cut from the middle.

    Where upstream has no answer this refuses: a square frame under ``"resize"`` (upstream stops
    with a TypeError) and frames with less than one patch along a side, before or after resizing.
    A square frame's 3/4 height is floored to whole patches, which changes upstream's answer only
    where no model could take it (widths that are not multiples of four patches).

    Parameters
    ----------
    size
        Long edge in pixels, or 224 for the square rule; the side under ``"window"``, ``"cover"``
        and ``"pad"``, the width under ``"width"``.
    rule
        ``"crop"``, ``"resize"``, ``"window"``, ``"cover"``, ``"width"`` or ``"pad"``.
    patch
        Patch edge in pixels; both sides of a prepared frame are multiples of it.

    Raises
    ------
    InvalidArgument
        If no frame could be prepared this way.

    Examples
    --------
    >>> Preparation(512).shape(480, 640)
    (384, 512)
    """

    size: int
    rule: Rule = "crop"
    patch: int = 16

    def __post_init__(self) -> None:
        for name in ("size", "patch"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InvalidArgument(
                    f"{name}={value!r} is not a positive whole number of pixels; "
                    "give for example Preparation(size=512, patch=16)"
                )
        if self.rule not in get_args(Rule):
            raise InvalidArgument(
                f'rule={self.rule!r} is not known; allowed are "crop" (central crop, official for '
                'pose), "resize" (second resize, official for depth), "window" (a square out '
                'of the middle), "cover" (a square, as Spann3R takes it), "width" and "pad" (as '
                "VGGT takes it)"
            )
        if self.size < self.patch:
            raise InvalidArgument(
                f"size={self.size} is less than one patch of {self.patch} pixels; "
                f"give a size of at least {self.patch}"
            )
        square = self.size == SQUARE_SIZE or self.rule in ("cover", "window")
        if (square or self.rule in ("width", "pad")) and self.size % self.patch:
            what = "square frames" if square else f"frames of {self.size} pixels along a side"
            raise InvalidArgument(
                f"size={self.size} gives {what}, which {self.patch}-pixel patches do not "
                f"fill; give a patch that divides {self.size}, or another size"
            )

    def to_dict(self) -> dict[str, Any]:
        """Give the fields by name, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "Preparation":
        """Read what :meth:`to_dict` wrote.

        Raises
        ------
        InvalidArgument
            If a field is unknown, missing or invalid.
        """
        try:
            return cls(**fields)
        except TypeError as error:
            raise InvalidArgument(
                f"{fields!r} does not describe a Preparation; its fields are size, rule and patch"
            ) from error

    def shape(self, height: int, width: int) -> tuple[int, int]:
        """Give (height, width) of the prepared frame for a source of `height` x `width` pixels.

        Raises
        ------
        InvalidArgument
            If the rule has no answer for this source size.
        """
        return self._geometry(height, width).prepared

    def pixels(self, image: np.ndarray) -> np.ndarray:
        """Resize and crop one frame.

        Parameters
        ----------
        image
            uint8 (y, x, rgb); under ``"width"`` and ``"pad"`` alpha may follow, which lays the
            frame over white.

        Returns
        -------
        numpy.ndarray
            uint8 (y, x, rgb) of the prepared size.

        Raises
        ------
        InvalidArgument
            If `image` is not such an array, or its size has no answer under the rule.
        """
        over_white = self.rule in ("width", "pad")
        if over_white and image.ndim == 3 and image.shape[2] == 4 and image.dtype == np.uint8:
            image = _over_white(image)
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise InvalidArgument(
                f"a frame must be uint8 (y, x, rgb); got {image.dtype} of shape {image.shape}"
            )
        geometry = self._geometry(*image.shape[:2])
        # The first resize keeps the aspect; the rule "resize" reaches its own aspect in a second.
        single = self.rule == "cover" or over_white
        first = _size_wh(geometry.resized if single else self._long_edge_resize(*image.shape[:2]))
        shrinks = self.rule == "cover" or (not single and max(image.shape[:2]) > max(first))
        filtering = Image.Resampling.LANCZOS if shrinks else Image.Resampling.BICUBIC
        height, width = geometry.source
        picture = Image.fromarray(image[:height, :width]).resize(first, filtering)
        if self.rule == "resize":
            picture = picture.resize(_size_wh(geometry.prepared), Image.Resampling.LANCZOS)
        (top, left), (rows, columns) = geometry.offset, geometry.prepared
        if min(top, left) < 0:
            margin = Image.new("RGB", _size_wh(geometry.prepared), "white")
            margin.paste(picture, (-left, -top))
            return np.array(margin)
        return np.array(picture.crop((left, top, left + columns, top + rows)))

    def image(self, image: np.ndarray) -> np.ndarray:
        """Prepare one frame as network input.

        Parameters
        ----------
        image
            uint8 (y, x, rgb).

        Returns
        -------
        numpy.ndarray
            float32 (rgb, y, x) in [-1, 1]: (v / 255 - 0.5) / 0.5, in float32 and in that order.

        Raises
        ------
        InvalidArgument
            As :meth:`pixels`.
        """
        levels = self.pixels(image).transpose(2, 0, 1).astype(np.float32, order="C")
        levels /= np.float32(255)
        levels -= np.float32(0.5)
        levels /= np.float32(0.5)
        return levels

    def depth(self, depth: np.ndarray) -> np.ndarray:
        """Sample a map of the source at the centre of every prepared pixel.

        Nearest neighbour: depth is never averaged over an edge and missing values stay what they
        are. A margin is NaN, or 0 where there is no NaN.

        Parameters
        ----------
        depth
            (y, x) of the source, any dtype; trailing dimensions are kept.

        Returns
        -------
        numpy.ndarray
            (y, x) of the prepared size, same dtype.

        Raises
        ------
        InvalidArgument
            If `depth` has no two leading dimensions, or its size has no answer under the rule.
        """
        if depth.ndim < 2:
            raise InvalidArgument(f"a map must have dimensions (y, x); got shape {depth.shape}")
        geometry = self._geometry(*depth.shape[:2])
        rows, columns = (
            _nearest(prepared, offset, resized, source)
            for source, resized, prepared, offset in zip(*geometry, strict=True)
        )
        found = depth[rows.clip(0, len(depth) - 1)[:, None], columns.clip(0, depth.shape[1] - 1)]
        if min(geometry.offset) < 0:
            outside = (rows != rows.clip(0, len(depth) - 1))[:, None]
            outside = outside | (columns != columns.clip(0, depth.shape[1] - 1))
            found[outside] = np.nan if np.issubdtype(depth.dtype, np.floating) else 0
        return found

    def mask(self, mask: np.ndarray) -> np.ndarray:
        """Sample a mask (or labels) of the source exactly as :meth:`depth` does."""
        return self.depth(mask)

    def intrinsics(self, intrinsics: np.ndarray, height: int, width: int) -> np.ndarray:
        """Move intrinsics into the prepared frame.

        Pixel centres are at integer coordinates before and after, so a point that projects to
        (x, y) in the source projects to the place where the resize and crop move that point.

        Parameters
        ----------
        intrinsics
            (..., camera_row, camera_col), 3 x 3, in pixels of the source.
        height, width
            Source size in pixels.

        Returns
        -------
        numpy.ndarray
            float64 (..., camera_row, camera_col), in pixels of the prepared frame.

        Raises
        ------
        InvalidArgument
            If `intrinsics` is not 3 x 3, or the source size has no answer under the rule.
        """
        intrinsics = np.asarray(intrinsics, dtype=np.float64)
        if intrinsics.shape[-2:] != (3, 3):
            raise InvalidArgument(
                f"intrinsics must end in (camera_row, camera_col) of 3 x 3; got {intrinsics.shape}"
            )
        geometry = self._geometry(height, width)
        move = np.eye(3)
        for axis, scale, offset in zip((1, 0), geometry.scale(), geometry.offset, strict=True):
            move[axis, axis] = scale
            # Scaling acts on pixel edges, which lie half a pixel from the centres.
            move[axis, 2] = 0.5 * scale - 0.5 - offset
        return move @ intrinsics

    def _long_edge_resize(self, height: int, width: int) -> tuple[int, int]:
        """Give (height, width) after the first, aspect-keeping resize."""
        long_edge = WINDOW_FROM if self.rule == "window" else self.size
        if self.rule != "window" and self.size == SQUARE_SIZE:
            long_edge = round(self.size * max(width / height, height / width))
        longest = max(height, width)
        return round(height * long_edge / longest), round(width * long_edge / longest)

    def _geometry(self, height: int, width: int) -> Geometry:
        """Decide where a source of this size goes; the one place that does."""
        if min(height, width) < self.patch:
            raise InvalidArgument(
                f"a frame of {width} x {height} pixels (width x height) is smaller than one patch; "
                f"each side must have at least {self.patch} pixels. Give larger frames"
            )
        if self.rule == "cover":
            return self._cover(height, width)
        if self.rule in ("width", "pad"):
            return self._whole_patches(height, width)
        resized = self._long_edge_resize(height, width)
        if self.rule == "window":
            if min(resized) < self.size:
                raise InvalidArgument(
                    f"a frame of {width} x {height} pixels (width x height) is {resized[1]} x "
                    f"{resized[0]} at a long edge of {WINDOW_FROM}, which has no square of "
                    f'{self.size}; use rule="crop"'
                )
            prepared = (self.size, self.size)
        elif self.size == SQUARE_SIZE:
            edge = 2 * (min(resized) // 2)
            prepared = (edge, edge)
        else:
            rows, columns = (2 * (side // 2) // self.patch * self.patch for side in resized)
            if resized[0] == resized[1]:
                if self.rule == "resize":
                    raise InvalidArgument(
                        f"a frame of {width} x {height} pixels (width x height) is square at size "
                        f'{self.size}, for which the rule "resize" has no official answer; '
                        f'use rule="crop" (4:3), or size={SQUARE_SIZE} (square)'
                    )
                rows = 3 * columns // 4 // self.patch * self.patch
            prepared = (rows, columns)
        if min(prepared) < self.patch:
            raise InvalidArgument(
                f"a frame of {width} x {height} pixels (width x height) is {resized[1]} x "
                f"{resized[0]} at size {self.size}, less than one {self.patch}-pixel patch along a "
                "side; crop the frames to a less elongated shape or raise the size"
            )
        if self.rule == "resize":
            return Geometry((height, width), prepared, prepared, (0, 0))
        top, left = (side // 2 - kept // 2 for side, kept in zip(resized, prepared, strict=True))
        return Geometry((height, width), resized, prepared, (top, left))

    def _cover(self, height: int, width: int) -> Geometry:
        source = 2 * (height // 2), 2 * (width // 2)
        scale = max(self.size / side for side in source) + 1e-8
        resized = int(source[0] * scale), int(source[1] * scale)
        offset = tuple(round((side - self.size) / 2) for side in resized)
        return Geometry(source, resized, (self.size, self.size), (offset[0], offset[1]))

    def _whole_patches(self, height: int, width: int) -> Geometry:
        """Bring one side to the size and the other to whole patches, as VGGT's loader does."""

        def rounded(side: int, by: int) -> int:
            return max(1, round(side * (self.size / by) / self.patch)) * self.patch

        tall = self.rule == "pad" and height > width
        resized = (
            (self.size, rounded(width, height)) if tall else (rounded(height, width), self.size)
        )
        if self.rule == "pad":
            margins = [(self.size - side) // 2 for side in resized]
            return Geometry((height, width), resized, (self.size, self.size),
                            (-margins[0], -margins[1]))  # fmt: skip
        kept = min(resized[0], self.size)
        return Geometry((height, width), resized, (kept, self.size), ((resized[0] - kept) // 2, 0))


def _over_white(image: np.ndarray) -> np.ndarray:
    """Lay uint8 (y, x, rgba) over white."""
    picture = Image.fromarray(image)
    white = Image.new("RGBA", picture.size, "white")
    return np.array(Image.alpha_composite(white, picture).convert("RGB"))


def _size_wh(shape: tuple[int, int]) -> tuple[int, int]:
    """Turn (height, width) into Pillow's (width, height)."""
    return shape[1], shape[0]


def _nearest(prepared: int, offset: int, resized: int, source: int) -> np.ndarray:
    """Find the source index under the centre of each prepared pixel, in integers, exactly."""
    centres = 2 * (np.arange(prepared, dtype=np.int64) + offset) + 1
    return centres * source // (2 * resized)
