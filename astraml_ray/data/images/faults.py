"""What is wrong with an encoded image: by its header at little cost, or by decoding it."""

from __future__ import annotations

import io

from PIL import Image, UnidentifiedImageError

from astraml_ray.data.encoding.pixels import MAX_PIXELS

__all__ = ["decode_fault", "header_fault"]


def header_fault(data: bytes) -> str | None:
    """Why an image cannot be used, as far as its header tells; None if it may be.

    An image that is cut short has a whole header: only decoding it tells.
    """
    return _fault(data, decoded=False)


def decode_fault(data: bytes) -> str | None:
    """Why an image cannot be used; None if it can. It is decoded, a JPEG at an eighth of its size."""
    return _fault(data, decoded=True)


def _fault(data: bytes, *, decoded: bool) -> str | None:
    if not data:
        return "is empty"
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.width * image.height > MAX_PIXELS:
                return f"claims {image.width}x{image.height} pixels, more than {MAX_PIXELS:,}"
            if decoded:
                image.draft(None, (1, 1))
                image.load()
    except Image.DecompressionBombError:
        return f"claims more than {MAX_PIXELS:,} pixels"
    except UnidentifiedImageError:
        return f"is of no format that can be read: it begins with {data[:8]!r}"
    except Exception as error:  # decoders raise whatever damaged bytes lead them to
        return f"cannot be decoded: {str(error)[:100] or type(error).__name__}"
    return None
