"""The catalogue's errors of access: who asks, what the rules say, and secrets."""

from __future__ import annotations

from astraml_ray.api.catalogue_entry import request_error, service_error

__all__ = ["ACCESS_ERRORS"]

ACCESS_ERRORS = (
    request_error(
        "unauthenticated",
        401,
        "A token is needed",
        "The header Authorization is missing, or its token is malformed, unknown, revoked or expired.",
        "Send `Authorization: Bearer TOKEN`; `astraml token create` makes one, and `astraml up` wrote the first one.",
    ),
    request_error(
        "too_many_failures",
        429,
        "Too many failed tokens",
        "More tokens that do not count came from this address than anyone mistypes.",
        "Wait Retry-After seconds, and correct the token.",
        retry_after_s=6,
    ),
    request_error(
        "permission_denied",
        403,
        "A permission is missing",
        "The caller's role in the project, or the token itself, lacks the permission that `permission` names.",
        "Ask for one of `roles`, or use another token; `astraml can-i` shows what one may do.",
    ),
    request_error(
        "access",
        403,
        "The request is refused",
        "A rule of the project stands against it.",
        "Read `detail`.",
    ),
    request_error(
        "project_not_found",
        404,
        "There is no such project",
        "It does not exist, or the caller is no member of it; nothing tells which.",
        "Check the name; `astraml project list` shows your projects, and an org_admin makes new ones.",
    ),
    request_error(
        "not_found",
        404,
        "It does not exist",
        "There is no such member, token, policy version, secret, webhook or delivery that the caller may see.",
        "Check the name.",
    ),
    request_error(
        "already_exists",
        409,
        "The name is taken",
        "Another one has that name already.",
        "Choose another name, or use the one that is there.",
    ),
    request_error(
        "last_admin",
        409,
        "The organisation needs an admin",
        "The change would leave the organisation without an org_admin.",
        "Make someone else org_admin first.",
    ),
    request_error(
        "project_archived",
        409,
        "The project is archived",
        "An archived project keeps its jobs and takes no new ones.",
        "Submit into another project, or ask an org_admin to open it again.",
    ),
    request_error(
        "policy_invalid",
        422,
        "The policy is invalid",
        "It names a field that no job has, a value that the field cannot have, or rules that contradict each other.",
        "Correct every rule in `problems`.",
    ),
    request_error(
        "policy_violation",
        422,
        "The job breaks a policy",
        "A value is outside of what the policy of the project or of the organisation allows.",
        "Change every field in `problems`; `astraml policy show` lists the rules.",
    ),
    request_error(
        "policy_changed",
        409,
        "The policy was changed meanwhile",
        "Someone wrote a new version after the one that the change was made from.",
        "Read it again, and make the change from there.",
    ),
    request_error(
        "quota_exceeded",
        403,
        "The job is larger than a quota",
        "It asks for more than the project or the organisation may ever have at once, so it could never start.",
        "Ask for fewer GPUs, or an org_admin for a greater quota.",
    ),
    request_error(
        "quota_exhausted",
        429,
        "The project's quota is used up",
        "What the project may have is taken for now.",
        "Try again when jobs have ended, or let the job wait in the queue.",
        retry_after_s=60,
    ),
    request_error(
        "secret_not_found",
        422,
        "There is no such secret",
        "The job names a secret that its project does not have, or that was deleted.",
        "Store it with `astraml secret set NAME --project PROJECT`.",
    ),
    request_error(
        "secret_invalid",
        422,
        "The secret cannot be stored",
        "Its name is malformed, or its value is empty, too long or no text.",
        "Correct what `param` names.",
    ),
    request_error(
        "inline_secret",
        422,
        "The request has a secret in it",
        "A field holds a key, token or password as a literal; job specs are kept, shown and copied.",
        "Store it with `astraml secret set`, and name it: {secret: NAME}. Change the value, if it was sent over a "
        "network that others read.",
    ),
    request_error(
        "secret_grant",
        403,
        "The grant does not count",
        "A worker's grant for secrets has expired, was not made here, or covers other secrets.",
        "Resume the job: a new attempt gets a new grant.",
    ),
    request_error(
        "target_not_allowed",
        422,
        "The address must not be called",
        "A field leads to this machine or its files, a private network or a cloud's metadata service.",
        "Use a public address or a bucket, or ask the operator to allow it: ASTRAML_ALLOWED_TARGETS.",
    ),
    service_error(
        "policy_unreadable",
        503,
        "A policy cannot be read",
        "A newer release wrote it, and this process does not know what it asks for.",
        "Upgrade this process; until then it takes no jobs for that project.",
        retry_after_s=30,
    ),
    service_error(
        "secret_key",
        503,
        "The master key is missing or wrong",
        "Secrets are encrypted with a key that is lost, unreadable, or not the one configured.",
        "Bring the key back (ASTRAML_MASTER_KEY or the master key file), or store the secrets again.",
        retry_after_s=30,
    ),
)
