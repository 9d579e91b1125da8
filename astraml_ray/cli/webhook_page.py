"""Webhooks and what they were told, as text for people. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from astraml_ray.cli.quantities import clock, printable

__all__ = ["delivery_lines", "delivery_page", "webhook_lines", "webhook_page"]

Json = Mapping[str, Any]


def webhook_lines(webhooks: Iterable[Json]) -> list[str]:
    """A line each."""
    return [
        f"{one['name']}  {_status(one)}  {one['format']}  {printable(one['address'])}  {_wants(one)}"
        for one in webhooks
    ]


def webhook_page(webhook: Json) -> list[str]:
    """All about one."""
    why = f": {printable(webhook['disabled_reason'] or '')}" if not webhook["enabled"] else ""
    labels = ", ".join(f"{key}={value}" for key, value in webhook["labels"].items())
    keys = (
        f"v{key['version']}" + (f" until {clock(key['expires_at'])}" if key["expires_at"] else "")
        for key in webhook["keys"]
    )
    return [
        f"{webhook['name']} of {webhook['project_id']} {_status(webhook)}{why}",
        f"  {webhook['format']} to {printable(webhook['address'])}",
        f"  events {', '.join(webhook['events']) or 'none'}",
        *(f"  condition {_condition(one)}" for one in webhook["conditions"]),
        *([f"  only jobs with {printable(labels)}"] if labels else []),
        *([f"  left alone until {clock(webhook['held_until'])}, as it asked"] if webhook["held_until"] else []),
        f"  keys {', '.join(keys)}",
        f"  made {clock(webhook['created_at'])} by {webhook['created_by']}",
    ]


def delivery_lines(deliveries: Iterable[Json]) -> list[str]:
    """A line each."""
    return [
        "  ".join(
            part
            for part in (
                one["id"],
                clock(one["created_at"]),
                f"{one['status']:9}",
                one["event"],
                one["subject"] or "",
                f"tries {one['attempts']}",
                printable(one["last_error"] or ""),
                f"next {clock(one['next_at'])}" if one["next_at"] and one["attempts"] else "",
            )
            if part
        )
        for one in deliveries
    ]


def delivery_page(delivery: Json) -> list[str]:
    """A message, with how each try went."""
    return [
        *delivery_lines([delivery]),
        *(
            f"  try {one['number']}  {clock(one['at'])}  {one['http_status'] or 'no answer'}"
            f"  {one['took_s']:.2f} s  {printable(one['error'] or one['response'] or '').strip()[:200]}".rstrip()
            for one in delivery["log"]
        ),
        printable(delivery["body"]),
    ]


def _status(webhook: Json) -> str:
    return "enabled" if webhook["enabled"] else "disabled"


def _wants(webhook: Json) -> str:
    return ", ".join([*webhook["events"], *(_condition(one) for one in webhook["conditions"])])


def _condition(condition: Json) -> str:
    metric = f" {condition['metric']}" if condition["metric"] else ""
    stretch = f" for {condition['for']}" if condition["when"] == "no_improvement" else ""
    return f"{condition['when']}{metric}{stretch}"
