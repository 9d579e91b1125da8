"""What Serve's HTTP proxy is told in its own process, before it listens."""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["CALLBACK", "bound_headers"]

CALLBACK = {"RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "astraml_ray.api.proxy.bound_headers"}
"""The environment that has Serve's proxy call it."""


def bound_headers() -> list[Any]:
    """Leaves the proxy the HTTP parser that bounds headers.

    uvicorn takes httptools where it finds it, which keeps headers for as long as they come: anyone could fill the
    memory, before a token is asked for. h11 hangs up after 64 KiB.

    Returns:
        No middleware; Serve asks for a list.
    """
    sys.modules["httptools"] = None  # type: ignore[assignment]
    return []
