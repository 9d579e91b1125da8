"""The catalogue's errors of requests: 4xx, the client's to correct."""

from __future__ import annotations

from astraml_ray.api.catalogue_entry import request_error

__all__ = ["REQUEST_ERRORS"]

REQUEST_ERRORS = (
    request_error(
        "invalid_json",
        400,
        "The body cannot be read",
        "It is not UTF-8 JSON (or YAML), has a key twice, a number that is not finite or longer than 64 bits, NUL "
        "characters, more than 64 levels or 1,000 values; YAML may have no anchors.",
        "Correct the body at the place named.",
    ),
    request_error(
        "invalid_parameter",
        422,
        "A parameter is invalid",
        "A parameter of the query, a header, or a field of the body is unknown or outside of its range.",
        "Correct every parameter in `problems`.",
    ),
    request_error(
        "invalid_spec",
        422,
        "The job spec is invalid",
        "Fields are unknown, missing, of the wrong type or outside of their range.",
        "Correct every field in `problems`; GET /v2.1/schema has the JSON Schema.",
    ),
    request_error(
        "invalid_request",
        422,
        "The request cannot be met",
        "The request is well formed, and cannot be met as it is.",
        "Read `detail`.",
    ),
    request_error(
        "unsupported_media_type",
        415,
        "The body's type is not supported",
        "Bodies are application/json or application/yaml, in UTF-8, not compressed.",
        "Send the header Content-Type: application/json.",
    ),
    request_error(
        "body_too_large",
        413,
        "The body is too large",
        "A spec is small; the service reads 1 MB at most.",
        "Put data into the dataset, not into the spec.",
    ),
    request_error(
        "request_timeout",
        408,
        "The body did not arrive in time",
        "The connection is slow, or was cut.",
        "Send the request again; with an Idempotency-Key that is always safe.",
        retry_after_s=1,
    ),
    request_error(
        "route_not_found",
        404,
        "There is nothing at this path",
        "The path is misspelt, or of another version of the API.",
        "GET /openapi.json lists every path; those of this version begin with /v2.1.",
    ),
    request_error(
        "method_not_allowed",
        405,
        "The path does not take this method",
        "The path is right, the method is not.",
        "Use one of the methods in the header Allow.",
    ),
    request_error(
        "job_not_found",
        404,
        "There is no such job",
        "The id is misspelt, or the job is of another installation or project.",
        "GET /v2.1/jobs lists the jobs.",
    ),
    request_error(
        "trial_not_found",
        404,
        "There is no such trial",
        "The sweep has no trial with that id; `best` stands for the best one, once a trial has a value.",
        "GET /v2.1/jobs/{id}/trials lists them.",
    ),
    request_error(
        "not_a_sweep",
        409,
        "The job is no sweep",
        "Its spec has no `sweep`: it trains one model, and has no trials.",
        "GET /v2.1/jobs/{id} and its metrics tell how it went.",
    ),
    request_error(
        "schedule_not_found",
        404,
        "There is no such schedule",
        "The id is misspelt, or the schedule was deleted, or is of another installation or project.",
        "GET /v2.1/schedules lists the schedules.",
    ),
    request_error(
        "artifact_not_found",
        404,
        "The run has no such file",
        "The path is misspelt, or the file is not written yet.",
        "GET /v2.1/jobs/{id}/artifacts lists the files.",
    ),
    request_error(
        "error_code_not_found",
        404,
        "There is no such error code",
        "The code is misspelt, or of a newer version.",
        "GET /v2.1/errors lists the codes.",
    ),
    request_error(
        "range_not_satisfiable",
        416,
        "The range begins after the file's end",
        "The file is shorter than the client thinks.",
        "Read the size in the header Content-Range.",
    ),
    request_error(
        "job_terminal",
        409,
        "The job has ended",
        "What was asked for is possible only before a job ends.",
        "Clone it, or resume it if it failed or was cancelled.",
    ),
    request_error(
        "job_not_resumable",
        409,
        "The job cannot be resumed",
        "Only a failed or cancelled job that had begun its run has something to go on from.",
        "Wait for its end, or clone it.",
    ),
    request_error(
        "invalid_transition",
        409,
        "The job is in another state by now",
        "The job changed its state while the request was under way.",
        "Read the job again.",
    ),
    request_error(
        "idempotency_key_invalid",
        400,
        "The idempotency key is invalid",
        "Idempotency-Key is 1 to 255 printable ASCII characters, and given once.",
        "Use a UUID.",
    ),
    request_error(
        "idempotency_key_reused",
        422,
        "The idempotency key belongs to another request",
        "The key was used before, with a spec that differs in `differs`.",
        "Use a new key for a new job, and the old one only to repeat the same request.",
    ),
    request_error(
        "idempotency_key_in_flight",
        409,
        "A request with this key is under way",
        "Another request with the same key has not ended, or the database was too busy to tell.",
        "Repeat the request after Retry-After seconds.",
        retry_after_s=1,
    ),
)
