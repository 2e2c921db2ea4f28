"""Uploaded models and samples, and what a model is checked for."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class ModelInput(BaseModel):
    """A graph input as the file names it; ``shape`` has an integer, a name or None (unknown) a dimension."""

    name: str
    dtype: str
    shape: list[int | str | None] | None = None


class ModelSchema(BaseModel):
    """An uploaded ONNX file. ``id`` is the SHA-256 of its bytes."""

    id: str
    name: str
    filename: str
    size_bytes: int
    producer: str = ""
    ir_version: int | None = None
    opset: int | None = None
    node_count: int = 0
    inputs: list[ModelInput] = []
    outputs: list[ModelInput] = []
    created_at: datetime
    job_count: int = 0


class SamplesSchema(BaseModel):
    """An uploaded ``.npz`` with one array per model input. ``id`` is the SHA-256 of its bytes."""

    id: str
    filename: str
    size_bytes: int
    created_at: datetime


class CheckRequest(BaseModel):
    """What to check a model for."""

    model_config = ConfigDict(extra="forbid")

    target: str = Field(default="host", description="the target's name")
    input_shapes: dict[str, list[Annotated[int, Field(ge=1)]]] = Field(
        default={}, description="the shape of each input that has named or unknown dimensions"
    )


class CheckReport(BaseModel):
    """The preflight's answer; its fields are those of the tuner's preflight report."""

    model_config = ConfigDict(extra="allow")

    model_id: str
    target: str
