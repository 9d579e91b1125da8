"""AstraML on Ray: a job spec in, a trained model out."""

__all__ = ["__version__"]

__version__ = "0.1.0"
