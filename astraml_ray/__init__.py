"""AstraML on Ray: a job spec in, a trained model out."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from astraml_ray.client import Client

__all__ = ["Client", "__version__"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # The client brings an HTTP library with it, which most of this package has no use for.
    if name == "Client":
        from astraml_ray.client import Client

        return Client
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
