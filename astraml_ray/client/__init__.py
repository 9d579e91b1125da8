"""The Python client of the service: HTTP only, and what the command line is built on."""

from astraml_ray.client.client import Client
from astraml_ray.client.failures import ApiError, WaitTimeoutError, outcome_exit_code

__all__ = ["ApiError", "Client", "WaitTimeoutError", "outcome_exit_code"]
