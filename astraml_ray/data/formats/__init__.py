"""File formats: how one is recognised, its fragments found cheaply, and one of them read.

One file per format; `registry` has them all. A **fragment** is a Parquet row group or, of a large one, a range of its
rows; a range of whole lines, of samples of a tar or of Arrow record batches; or a group of small files. Of an image
folder with a metadata file it is a run of that file's rows: `listing_of` puts the images into their order, behind the
file.
"""

from __future__ import annotations

from astraml_ray.data.formats.fragment import (
    Bounds,
    Fragment,
    format_names,
    fragment_of,
    place_of,
    sources_of,
    unplaced,
)
from astraml_ray.data.formats.image_metadata import Listing, listing_of, objects_of
from astraml_ray.data.formats.mending import Mended
from astraml_ray.data.formats.recognise import first_of, format_of, formats_of
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
    "Listing",
    "Mended",
    "first_of",
    "format_names",
    "format_of",
    "formats_of",
    "fragment_of",
    "fragments_of",
    "listing_of",
    "mended_schema",
    "objects_of",
    "place_of",
    "read_fragment",
    "read_mended",
    "rows_lost",
    "schema_of",
    "sources_of",
    "unplaced",
]
