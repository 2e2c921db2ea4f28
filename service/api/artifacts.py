"""/artifacts: downloads, and the key that bundles are signed with."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from service.api.codes import problem_responses
from service.api.dependencies import ArtifactId, ServicesDep
from service.api.files import StoredFile, file_responses
from service.errors import StorageUnavailable
from service.queries import artifacts as queries
from service.schemas.artifacts import ArtifactSchema, SigningKeySchema
from service.signing import public_key

router = APIRouter(tags=["artifacts"])


@router.get(
    "/signing-key",
    summary="The public key that bundles are signed with",
    description="The detached signature of a bundle, `{bundle}.sig`, is checked against it: `tessera verify --key`.",
    response_description="The key and its fingerprint",
    responses=problem_responses("signature_invalid"),
)
def get_signing_key(services: ServicesDep) -> SigningKeySchema:
    key = public_key(services.settings)
    return SigningKeySchema(algorithm="ed25519", public_key=key.text, fingerprint=key.fingerprint)


@router.get(
    "/artifacts/{artifact_id}",
    summary="Read one artifact",
    description="Its kind, name, size and SHA-256, and where it is downloaded.",
    response_description="The artifact",
    responses=problem_responses("artifact_not_found"),
)
def get_artifact(artifact_id: ArtifactId, services: ServicesDep) -> ArtifactSchema:
    return queries.get_artifact(services.database, artifact_id)


@router.head("/artifacts/{artifact_id}/download", include_in_schema=False)
@router.get(
    "/artifacts/{artifact_id}/download",
    summary="Download an artifact",
    description="`ETag` is the SHA-256 of the whole file; `Range` and `If-None-Match` are honoured.",
    response_class=StoredFile,
    responses={
        **file_responses("application/gzip", "application/json", "application/octet-stream", description="The file"),
        304: {"description": "The file is the one that `If-None-Match` names"},
        **problem_responses("artifact_not_found", StorageUnavailable),
    },
)
def download_artifact(artifact_id: ArtifactId, request: Request, services: ServicesDep) -> Response:
    artifact = queries.get_artifact(services.database, artifact_id)
    etag = f'"{artifact.sha256}"'
    # Content under a hash never changes.
    headers = {"ETag": etag, "Cache-Control": "private, max-age=31536000, immutable"}
    if etag in (part.strip().removeprefix("W/") for part in request.headers.get("if-none-match", "").split(",")):
        return Response(status_code=304, headers=headers)
    return StoredFile(
        services.blobs.path(artifact.sha256),
        media_type=artifact.content_type,
        filename=artifact.filename,
        headers=headers,
    )
