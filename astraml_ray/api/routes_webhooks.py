"""Routes of webhooks: make, see, change, test, rotate, delete; and what they were told, and telling it again."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request

from astraml_ray.access.permissions import Permission
from astraml_ray.api.answers import JsonAnswer
from astraml_ray.api.notifying import (
    change,
    known,
    known_delivery,
    make,
    remove,
    replay,
    rotate,
    send_test,
    warnings_of,
)
from astraml_ray.api.openapi import BODY_CODES, STORE_CODES, body_of, problems
from astraml_ray.api.parameters import decode_cursor
from astraml_ray.api.requests import Body
from astraml_ray.api.routes_projects import Cursor
from astraml_ray.api.schemas_access import read_input
from astraml_ray.api.schemas_webhooks import (
    DeletedWebhook,
    DeliveryObject,
    DeliveryPage,
    DeliveryStatus,
    MadeWebhook,
    RotatedWebhook,
    RotateRequest,
    WebhookList,
    WebhookObject,
)
from astraml_ray.api.services import ApiServices, Caller, Requires, Services, authorize_project
from astraml_ray.api.submission import nudge
from astraml_ray.api.views_access import page_view
from astraml_ray.api.views_webhooks import delivery_object, delivery_view, webhook_path, webhook_view
from astraml_ray.spec.schedule import seconds_or_zero
from astraml_ray.spec.webhook import NewWebhook, WebhookChange
from astraml_ray.store.deliveries import DeliveryRecord, list_attempt_rows, list_deliveries
from astraml_ray.store.webhooks import WebhookRecord, list_values, list_webhooks

__all__ = ["router"]

router = APIRouter(prefix="/v2.1/projects/{project_id}/webhooks", tags=["webhooks"])

_PROJECT = ("project_not_found", *STORE_CODES)
_CODES = (*_PROJECT, "not_found")
_READ = [Depends(Requires(Permission.WEBHOOK_READ))]
_MANAGE = [Depends(Requires(Permission.WEBHOOK_MANAGE))]
_ACCEPTED = {"model": DeliveryObject, "description": "It is sent as soon as the controller looks"}


@router.get(
    "",
    summary="List a project's webhooks",
    dependencies=_READ,
    responses={**problems(*_PROJECT), 200: {"model": WebhookList}},
)
def list_all_webhooks(request: Request, services: ApiServices, project_id: str) -> JsonAnswer:
    """By name. Never a whole address, nor a key."""
    authorize_project(request, project_id)
    now = services.clock()
    with services.store.read() as conn:
        found = list_webhooks(conn, project_id=project_id)
        sealed = list_values(conn, [one.id for one in found])
    views = [webhook_view(one, [v for v in sealed if v.webhook_id == one.id], now=now) for one in found]
    return JsonAnswer({"data": views})


@router.post(
    "",
    status_code=201,
    summary="Make a webhook",
    dependencies=_MANAGE,
    responses={
        **problems(*_PROJECT, *BODY_CODES, "already_exists", "target_not_allowed", "secret_key"),
        201: {
            "model": MadeWebhook,
            "description": "It is told what happens from now on",
            "headers": {"Location": {"description": "The webhook", "schema": {"type": "string"}}},
        },
    },
    openapi_extra={"requestBody": body_of("NewWebhook", required=True)},
)
def make_webhook(request: Request, services: ApiServices, caller: Caller, project_id: str, body: Body) -> JsonAnswer:
    """The key that signs messages is in the answer, and nowhere else."""
    authorize_project(request, project_id)
    asked = read_input(NewWebhook, body)
    webhook, key = make(services, caller, project_id, asked)
    view = {**_view(services, webhook), "signing_key": key, "warnings": warnings_of(asked)}
    return JsonAnswer(view, status_code=201, headers={"Location": webhook_path(webhook)})


@router.get(
    "/{name}",
    summary="Look at a webhook",
    dependencies=_READ,
    responses={**problems(*_CODES), 200: {"model": WebhookObject}},
)
def show_webhook(request: Request, services: ApiServices, project_id: str, name: str) -> JsonAnswer:
    """What it is told, and how it is."""
    return JsonAnswer(_view(services, _known(request, services, project_id, name)))


@router.patch(
    "/{name}",
    summary="Change a webhook",
    dependencies=_MANAGE,
    responses={
        **problems(*_CODES, *BODY_CODES, "target_not_allowed", "secret_key"),
        200: {"model": WebhookObject},
    },
    openapi_extra={"requestBody": body_of("WebhookChange", required=True)},
)
def change_one_webhook(
    request: Request, services: ApiServices, caller: Caller, project_id: str, name: str, body: Body
) -> JsonAnswer:
    """Changes the fields that are given. `enabled: true` also puts one back that its receiver has disabled."""
    authorize_project(request, project_id)
    webhook = change(services, caller, project_id, name, read_input(WebhookChange, body))
    nudge(services)
    return JsonAnswer(_view(services, webhook))


@router.delete(
    "/{name}",
    summary="Delete a webhook",
    dependencies=_MANAGE,
    responses={**problems(*_CODES, *BODY_CODES), 200: {"model": DeletedWebhook}},
)
def delete_one_webhook(
    request: Request, services: ApiServices, caller: Caller, project_id: str, name: str, body: Body
) -> JsonAnswer:
    """Takes it away, with its keys, its log, and what it is still to be told."""
    authorize_project(request, project_id)
    body.fields([])
    remove(services, caller, project_id, name)
    return JsonAnswer({"project_id": project_id, "name": name})


@router.post(
    "/{name}/test",
    status_code=202,
    summary="Test a webhook",
    dependencies=_MANAGE,
    responses={**problems(*_CODES, *BODY_CODES), 202: _ACCEPTED},
)
def test_webhook(
    request: Request, services: ApiServices, caller: Caller, project_id: str, name: str, body: Body
) -> JsonAnswer:
    """Sends `webhook.test`, once, also while it is disabled; the delivery tells how that went."""
    authorize_project(request, project_id)
    body.fields([])
    webhook, delivery = send_test(services, caller, project_id, name)
    nudge(services)
    return _delivery(services, webhook, delivery, status_code=202)


@router.post(
    "/{name}/rotate",
    summary="Make a new signing key",
    dependencies=_MANAGE,
    responses={**problems(*_CODES, *BODY_CODES, "secret_key"), 200: {"model": RotatedWebhook}},
    openapi_extra={"requestBody": body_of("RotateRequest", required=False)},
)
def rotate_key(
    request: Request, services: ApiServices, caller: Caller, project_id: str, name: str, body: Body
) -> JsonAnswer:
    """For the time of `overlap`, messages carry the signatures of both keys, so that none is refused meanwhile."""
    authorize_project(request, project_id)
    overlap_s = seconds_or_zero(read_input(RotateRequest, body).overlap)
    webhook, key = rotate(services, caller, project_id, name, overlap_s=overlap_s)
    return JsonAnswer({**_view(services, webhook), "signing_key": key})


@router.get(
    "/{name}/deliveries",
    summary="List what a webhook was told",
    dependencies=_READ,
    responses={**problems(*_CODES), 200: {"model": DeliveryPage}},
)
def list_all_deliveries(
    request: Request,
    services: ApiServices,
    project_id: str,
    name: str,
    status: Annotated[DeliveryStatus | None, Query(description="Only those")] = None,
    cursor: Cursor = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> JsonAnswer:
    """A page of messages of the last 30 days, the newest first."""
    webhook, before = _known(request, services, project_id, name), decode_cursor(cursor)
    with services.store.read() as conn:
        found = list_deliveries(conn, webhook.id, status=status, before_id=before, limit=limit + 1)
    return JsonAnswer(page_view(found, limit, lambda one: one.id, lambda one: delivery_view(one, webhook)))


@router.get(
    "/{name}/deliveries/{delivery_id}",
    summary="Look at a message",
    dependencies=_READ,
    responses={**problems(*_CODES), 200: {"model": DeliveryObject}},
)
def show_delivery(request: Request, services: ApiServices, project_id: str, name: str, delivery_id: str) -> JsonAnswer:
    """What was sent, and how each try went."""
    webhook = _known(request, services, project_id, name)
    with services.store.read() as conn:
        delivery = known_delivery(conn, webhook, delivery_id)
    return _delivery(services, webhook, delivery)


@router.post(
    "/{name}/deliveries/{delivery_id}/replay",
    status_code=202,
    summary="Send a message again",
    dependencies=_MANAGE,
    responses={**problems(*_CODES, *BODY_CODES), 202: _ACCEPTED},
)
def replay_delivery(
    request: Request,
    services: ApiServices,
    caller: Caller,
    project_id: str,
    name: str,
    delivery_id: str,
    body: Body,
) -> JsonAnswer:
    """Sends it again, with its id and its body; to a webhook that is disabled, once it is enabled."""
    authorize_project(request, project_id)
    body.fields([])
    webhook, delivery = replay(services, caller, project_id, name, delivery_id)
    nudge(services)
    return _delivery(services, webhook, delivery, status_code=202)


def _known(request: Request, services: Services, project_id: str, name: str) -> WebhookRecord:
    authorize_project(request, project_id)
    with services.store.read() as conn:
        return known(conn, project_id, name)


def _view(services: Services, webhook: WebhookRecord) -> dict[str, Any]:
    with services.store.read() as conn:
        sealed = list_values(conn, [webhook.id])
    return webhook_view(webhook, sealed, now=services.clock())


def _delivery(
    services: Services, webhook: WebhookRecord, delivery: DeliveryRecord, *, status_code: int = 200
) -> JsonAnswer:
    with services.store.read() as conn:
        log = list_attempt_rows(conn, delivery.id)
    return JsonAnswer(delivery_object(delivery, webhook, log), status_code=status_code)
