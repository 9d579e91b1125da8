"""File formats: how one is recognised, its fragments found cheaply, and one of them read.

One file per format; `registry` has them all. A **fragment** is a Parquet row group, a range of whole lines, of samples
of a tar or of Arrow record batches, or a group of small files.
"""

from __future__ import annotations

from astraml_ray.data.formats.fragment import Bounds, Fragment, place_of
from astraml_ray.data.formats.mending import Mended
from astraml_ray.data.formats.recognise import format_of, formats_of
from astraml_ray.data.formats.registry import (
    FORMATS,
    fragments_of,
    mended_schema,
    read_fragment,
    read_mended,
    rows_lost,
    schema_of,
)

__all__ = [
    "FORMATS",
    "Bounds",
    "Fragment",
    "Mended",
    "format_of",
    "formats_of",
    "fragments_of",
    "mended_schema",
    "place_of",
    "read_fragment",
    "read_mended",
    "rows_lost",
    "schema_of",
]
