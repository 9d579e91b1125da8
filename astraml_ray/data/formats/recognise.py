"""Which format an object is: its first bytes decide, its name where they leave it open."""

from __future__ import annotations

import csv
import io
import json
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import zstandard

from astraml_ray.data.formats.delimited import delimiter_of
from astraml_ray.data.splits import IMAGE_SUFFIXES, is_metadata
from astraml_ray.data.storage.credentials import Access
from astraml_ray.data.storage.objects import ObjectInfo, read_range
from astraml_ray.errors import DamagedError, DataError

__all__ = ["HEAD_BYTES", "content_of", "first_of", "format_of", "formats_of", "metadata_of", "name_of"]

HEAD_BYTES = 1 << 14
_ZSTD_BLOCK_BYTES = (1 << 17) + (1 << 10)
"""A block of zstd, whose beginning alone tells nothing, and the headers before it."""
_THREADS = 16
_BY_SUFFIX = {
    "parquet": "parquet",
    "pq": "parquet",
    "arrow": "arrow",
    "feather": "arrow",
    "jsonl": "jsonl",
    "ndjson": "jsonl",
    "json": "jsonl",
    "csv": "csv",
    "tsv": "csv",
    "txt": "text",
    "text": "text",
    "tar": "webdataset",
    "tgz": "webdataset",
    **dict.fromkeys(IMAGE_SUFFIXES, "image-folder"),
}
_COMPRESSED = {"gz": "gz", "tgz": "gz", "bgz": "gz", "zst": "zst", "zstd": "zst"}
_LINES = ("jsonl", "csv", "text")
_MAGIC = (
    (b"PAR1", "parquet"),
    (b"ARROW1", "arrow"),
    (b"\xff\xff\xff\xff", "arrow"),
    (b"\x1f\x8b", "gz"),
    (b"\x28\xb5\x2f\xfd", "zst"),
    (b"\xff\xd8\xff", "image-folder"),
    (b"\x89PNG\r\n\x1a\n", "image-folder"),
    (b"GIF87a", "image-folder"),
    (b"GIF89a", "image-folder"),
    (b"II*\x00", "image-folder"),
    (b"MM\x00*", "image-folder"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
    (b"PK\x03\x04", "zip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
)


def formats_of(objects: Sequence[ObjectInfo], wanted: str, access: Access) -> list[str]:
    """The format of each object, as format_of; what is named as an image is not opened.

    Returns:
        Formats; "metadata" for a file that tells of the images beside it.

    Raises:
        DataError: As format_of.
    """
    named = {info.uri for info in objects if _named_as_image(info, wanted)}
    others = [info for info in objects if info.uri not in named and not (named and is_metadata(info.uri))]
    with ThreadPoolExecutor(_THREADS) as pool:
        found = dict(zip(others, pool.map(lambda info: format_of(info, wanted, access), others), strict=True))
    return [found.get(info, "image-folder" if info.uri in named else "metadata") for info in objects]


def metadata_of(objects: Sequence[ObjectInfo], wanted: str) -> list[ObjectInfo]:
    """Those of a split's objects that tell of the images among them."""
    metadata = [info for info in objects if is_metadata(info.uri)]
    return metadata if metadata and any(_named_as_image(info, wanted) for info in objects) else []


def first_of(objects: Sequence[ObjectInfo], wanted: str, access: Access) -> tuple[ObjectInfo, str]:
    """The object that tells the columns of all, and its format.

    Raises:
        DataError: As format_of.
    """
    for info in metadata_of(objects, wanted):
        return info, "metadata"
    return objects[0], format_of(objects[0], wanted, access)


def _named_as_image(info: ObjectInfo, wanted: str) -> bool:
    return wanted in ("auto", "image-folder") and name_of(info.uri)[0] == "image-folder"


def format_of(info: ObjectInfo, wanted: str, access: Access) -> str:
    """The format of an object.

    Args:
        info: The object.
        wanted: The spec's format; "auto" goes by content and name.
        access: How it is reached.

    Returns:
        A format of the spec, or "json" for a JSON array; with `.gz` or `.zst` after it if it is compressed.

    Raises:
        DataError: Nothing tells, the spec and the content disagree, or it is a format that is not read.
    """
    if _named_as_image(info, wanted):
        return "image-folder"
    named, _ = name_of(info.uri)
    head = read_range(info, 0, HEAD_BYTES, access)
    found, packed = content_of(head), ""
    if found in ("gz", "zst"):
        packed = f".{found}"
        begun = _unpacked(info, head, found)
        if not begun and len(head) < info.size:
            begun = _unpacked(info, read_range(info, 0, _ZSTD_BLOCK_BYTES, access), found)
        found = content_of(begun)
    if found in ("utf-16", "zip", "bzip2", "xz", "gz", "zst"):
        raise _not_read(info, found)
    return _settled(info, wanted, named, found) + packed


def name_of(uri: str) -> tuple[str | None, str]:
    """The format that a name tells, and the compression: `("jsonl", "gz")` for `a.jsonl.gz`."""
    parts = uri.rsplit("/", 1)[-1].lower().split(".")
    packed = _COMPRESSED.get(parts[-1], "") if len(parts) > 1 else ""
    if packed and parts[-1] not in _BY_SUFFIX:
        parts.pop()
    return (_BY_SUFFIX.get(parts[-1]) if len(parts) > 1 else None), packed


def content_of(head: bytes) -> str | None:
    """What the first bytes tell; None is lines of text that could be anything, "binary" what is no text."""
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    if head[257:262] == b"ustar":
        return "webdataset"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image-folder"
    if head[:2] == b"BM" and head[6:10] == b"\0\0\0\0":
        return "image-folder"
    if b"\0" in head:
        return "binary"
    return _lines_of(head.removeprefix(b"\xef\xbb\xbf").lstrip())


def _lines_of(head: bytes) -> str | None:
    lines = head.splitlines()
    if head[:1] == b"{":
        return "jsonl" if len(lines) < 2 or _is_object(lines[0]) else None
    if head[:1] == b"[" and head[1:].lstrip()[:1] in (b"{", b"]", b""):
        return "json"
    delimiter = delimiter_of(lines[0]) if len(lines) > 1 else None
    return "csv" if delimiter and _is_table(head.decode(errors="replace"), delimiter) else None


def _is_table(head: str, delimiter: str) -> bool:
    """Whether all records have as many fields; the last may be cut off, if it is not the only one."""
    try:
        widths = [len(record) for record in csv.reader(io.StringIO(head, newline=""), delimiter=delimiter) if record]
    except csv.Error:
        return False
    return len(widths) > 1 and len(set(widths[: max(2, len(widths) - 1)])) == 1


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _settled(info: ObjectInfo, wanted: str, named: str | None, found: str | None) -> str:
    """The spec's word, if the content allows it; else the content's, which the name refines."""
    readable = found in (None, "jsonl", "json", "csv")
    if wanted != "auto":
        if readable and wanted in _LINES:
            return "json" if wanted == "jsonl" and found == "json" else wanted
        if found == wanted:
            return wanted
        raise DataError(
            f"is {_called(found)} by its content, and dataset.format says {wanted}",
            param=info.uri,
            hint="leave dataset.format out, or take the object out of the dataset",
        )
    if found == "binary" or (found is None and named is None):
        if named not in (None, *_LINES):
            return str(named)  # damaged: reading it will say how
        raise DataError(
            "neither its name nor its content tells its format",
            param=info.uri,
            hint="set dataset.format to parquet, arrow, jsonl, csv, text, image-folder or webdataset, or take it out",
        )
    if found == "csv" and named in ("text", "jsonl"):
        return "text" if named == "text" else "csv"  # texts have commas
    if found is None:
        return str(named)
    return found


def _called(found: str | None) -> str:
    return {None: "text", "binary": "binary data of an unknown kind", "json": "a JSON array"}.get(found, str(found))


def _unpacked(info: ObjectInfo, head: bytes, packed: str) -> bytes:
    """The beginning of what is compressed, bounded whatever it would become."""
    try:
        if packed == "gz":
            return zlib.decompressobj(31).decompress(head, HEAD_BYTES)
        return zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(head).read(HEAD_BYTES)
    except (zlib.error, zstandard.ZstdError) as error:
        raise DamagedError(f"is damaged: {error}", param=info.uri, hint="write the object again") from error


def _not_read(info: ObjectInfo, found: str) -> DataError:
    if found == "utf-16":
        return DataError("is UTF-16", param=info.uri, hint="write it as UTF-8: iconv -f UTF-16 -t UTF-8")
    if found in ("gz", "zst"):
        return DataError("is compressed twice", param=info.uri, hint="compress it once")
    hint = "unpack it" if found == "zip" else "compress it with gzip or zstd, or not at all"
    return DataError(f"is {found}, which is not read", param=info.uri, hint=hint)
