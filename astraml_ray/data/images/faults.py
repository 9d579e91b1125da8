"""What is wrong with an encoded image: by its header at little cost, or by decoding it."""

from __future__ import annotations

from astraml_ray.data.encoding.pixels import UnreadableImage, opened

__all__ = ["decode_fault", "header_fault"]


def header_fault(data: bytes) -> str | None:
    """Why an image cannot be used, as far as its header tells; None if it may be.

    An image that is cut short has a whole header: only decoding it tells.

    Args:
        data: A file's bytes.
    """
    return _fault(data, decoded=False)


def decode_fault(data: bytes) -> str | None:
    """Why an image cannot be used; None if it can. It is decoded, a JPEG at an eighth of its size.

    Args:
        data: A file's bytes.
    """
    return _fault(data, decoded=True)


def _fault(data: bytes, *, decoded: bool) -> str | None:
    try:
        with opened(data) as image:
            if decoded:
                image.draft(None, (1, 1))
                image.load()
    except UnreadableImage as error:
        return str(error)
    return None
