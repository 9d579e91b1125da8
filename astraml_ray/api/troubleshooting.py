"""The troubleshooting page, written from the catalogue of errors: `python -m astraml_ray.api.troubleshooting`."""

from __future__ import annotations

from pathlib import Path

from astraml_ray.api.catalogue import CATALOGUE
from astraml_ray.api.catalogue_entry import CatalogueEntry

__all__ = ["PAGE", "render_page"]

PAGE = Path(__file__).with_name("TROUBLESHOOTING.md")
_HEAD = """# Troubleshooting

Every error has a code, which programs may branch on: codes and the addresses below are never renamed or taken away. The
same is told by `astraml explain CODE` and `GET /v2.1/errors/CODE`; `astraml explain JOB` says it of a job.
"""


def render_page() -> str:
    """The page as Markdown: first what jobs fail with, then what requests are refused for."""
    jobs = [entry for entry in CATALOGUE.values() if entry.stage in ("queue", "start", "train")]
    requests = [entry for entry in CATALOGUE.values() if entry not in jobs]
    parts = [_HEAD, "## Jobs\n", *map(_section, jobs), "## Requests\n", *map(_section, requests)]
    return "\n".join(parts)


def _section(entry: CatalogueEntry) -> str:
    again = "Trying again, unchanged, may work" if entry.retryable else "Trying again, unchanged, does not help"
    wait = f"; `Retry-After` says {entry.retry_after_s} s or what is known better" if entry.retry_after_s else ""
    status = f"HTTP {entry.status}. " if entry.status else ""
    return (
        f"### {entry.code}\n\n**{entry.title}.** {status}{again}{wait}.\n\n"
        f"* Cause: {entry.cause}\n* What to do: {entry.action}\n"
    )


if __name__ == "__main__":
    PAGE.write_text(render_page())
