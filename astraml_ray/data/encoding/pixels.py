"""From the bytes of an image to pixels of one size, with Pillow. Every odd kind of image is met here."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

__all__ = ["MAX_PIXELS", "Header", "UnreadableImage", "decode_image", "header_of", "opened"]

MAX_PIXELS = 64_000_000
"""Of the file's image, width times height: what claims more is refused before it is decoded."""


class UnreadableImage(ValueError):
    """The bytes are no image, a damaged one, or too large a one."""


@contextlib.contextmanager
def opened(data: Any) -> Iterator[Image.Image]:
    """An image of which the header is read; what its bytes do to what is done with it is their fault, too.

    Args:
        data: A file's bytes, in any format that Pillow reads.

    Raises:
        UnreadableImage: Saying why.
    """
    if not len(data):
        raise UnreadableImage("is empty")
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise UnreadableImage(f"claims {image.width}x{image.height} pixels, more than {MAX_PIXELS:,}")
            yield image
    except UnreadableImage:
        raise
    except Image.DecompressionBombError as error:
        raise UnreadableImage(f"claims more than {MAX_PIXELS:,} pixels") from error
    except UnidentifiedImageError as error:
        head = bytes(memoryview(data)[:8])
        raise UnreadableImage(f"is of no format that can be read: it begins with {head!r}") from error
    except Exception as error:  # decoders raise whatever damaged bytes lead them to
        raise UnreadableImage(f"cannot be decoded: {str(error)[:200] or type(error).__name__}") from error


def decode_image(
    data: bytes, height: int, width: int, *, short_edge: int | None, resample: int = 2
) -> npt.NDArray[np.uint8]:
    """Decodes an image, upright and in RGB, at a size.

    Of an animation the first frame is taken, transparency is dropped, 16 bits are scaled to 8.

    Args:
        data: A file's bytes, in any format that Pillow reads.
        height: Of the result.
        width: Of the result.
        short_edge: To which the shorter side is brought before the centre is cut out; None stretches the whole image.
        resample: Pillow's filter, antialiased: 2 is bilinear, 3 bicubic.

    Returns:
        (height, width, 3).

    Raises:
        UnreadableImage: Saying why.
    """
    with opened(data) as image:
        # A large JPEG is decoded at a half, a quarter or an eighth, still twice as large as what is kept.
        side = 2 * max(short_edge or 0, height, width)
        image.draft(None, (side, side))
        image.load()
        plain = _rgb(_upright(image))
        return np.asarray(_resized(plain, height, width, short_edge, resample), np.uint8)


@dataclass(frozen=True)
class Header:
    """What an image's file claims.

    Attributes:
        format: Such as `JPEG`.
        width: In pixels, before it is turned upright.
        height: In pixels.
    """

    format: str
    width: int
    height: int


def header_of(data: Any) -> Header | None:
    """The header of a file's bytes; None if it is no image, or claims more than MAX_PIXELS."""
    try:
        with opened(data) as image:
            return Header(str(image.format), image.width, image.height)
    except UnreadableImage:
        return None


def _upright(image: Image.Image) -> Image.Image:
    with contextlib.suppress(Exception):  # damaged EXIF data: the pixels are as they are
        return ImageOps.exif_transpose(image)
    return image


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        values: npt.NDArray[Any] = np.asarray(image).astype(np.float64) / 257  # 16 bits, whatever they are kept in
    elif image.mode == "F":
        values = np.asarray(image).astype(np.float64) * 255
    elif image.mode == "P" and "transparency" in image.info:
        return image.convert("RGBA").convert("RGB")
    else:
        return image if image.mode == "RGB" else image.convert("RGB")
    grey = np.nan_to_num(values).clip(0, 255).round().astype(np.uint8)
    return Image.fromarray(grey).convert("RGB")


def _resized(image: Image.Image, height: int, width: int, short_edge: int | None, resample: int) -> Image.Image:
    """The centre at the size wanted, in one step: a strip of one pixel is not first made a thousand times as long."""
    whole = (0.0, 0.0, float(image.width), float(image.height))
    box = whole
    if short_edge is not None:
        scale = min(image.width, image.height) / short_edge
        wide, high = min(image.width, width * scale), min(image.height, height * scale)
        left, top = (image.width - wide) / 2, (image.height - high) / 2
        box = (left, top, left + wide, top + high)
    if image.size == (width, height) and box == whole:
        return image
    return image.resize((width, height), Image.Resampling(resample), box=box)
