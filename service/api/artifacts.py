"""/artifacts: downloads."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse

from service.api.dependencies import ServicesDep, problem_responses
from service.api.schemas import ArtifactSchema, SigningKeySchema
from service.queries.artifacts import get_artifact
from service.signing import public_key

router = APIRouter(tags=["artifacts"])


@router.get("/signing-key", summary="The public key that bundles are signed with")
def read_signing_key(services: ServicesDep) -> SigningKeySchema:
    key = public_key(services.settings)
    return SigningKeySchema(algorithm="ed25519", public_key=key.text, fingerprint=key.fingerprint)


@router.get("/artifacts/{artifact_id}", summary="Read one artifact", responses=problem_responses(404))
def read_artifact(artifact_id: str, services: ServicesDep) -> ArtifactSchema:
    return get_artifact(services.database, artifact_id)


@router.api_route(
    "/artifacts/{artifact_id}/download",
    methods=["GET"],
    summary="Download an artifact",
    description="`ETag` is the SHA-256 of the whole file; `Range` and `If-None-Match` are honoured.",
    response_class=FileResponse,
    responses={
        206: {"description": "A part of the file"},
        304: {"description": "Not modified"},
        **problem_responses(404),
    },
)
def download(artifact_id: str, request: Request, services: ServicesDep) -> Response:
    artifact = get_artifact(services.database, artifact_id)
    etag = f'"{artifact.sha256}"'
    # Content under a hash never changes.
    headers = {"ETag": etag, "Cache-Control": "private, max-age=31536000, immutable"}
    if etag in (part.strip().removeprefix("W/") for part in request.headers.get("if-none-match", "").split(",")):
        return Response(status_code=304, headers=headers)
    return FileResponse(
        services.blobs.path(artifact.sha256),
        media_type=artifact.content_type,
        filename=artifact.filename,
        headers=headers,
    )
