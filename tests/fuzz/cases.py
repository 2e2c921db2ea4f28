"""The corpus: a number is a case, the same everywhere and at any time."""

from __future__ import annotations

import random
from dataclasses import dataclass

import onnx

from tests.fuzz.byte_mutations import mutate_bytes
from tests.fuzz.hostile import MAKERS
from tests.fuzz.protobuf_mutations import mutate_model
from tests.fuzz.seeds import seeds

KINDS = ("bytes", "protobuf", "hostile")
_WEIGHTS = (35, 50, 15)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A file to be uploaded: ``kind`` says how it was made, ``origin`` from what."""

    number: int
    kind: str
    origin: str
    content: bytes


def make_case(number: int) -> Case:
    """The case of that number, the same on every machine with the same version of onnx."""
    rng = random.Random(number)
    kind = rng.choices(KINDS, _WEIGHTS)[0]
    if kind == "hostile":
        origin = rng.choice(list(MAKERS))
        return Case(number=number, kind=kind, origin=origin, content=MAKERS[origin](rng))
    valid = seeds()
    origin, donor = rng.choice(list(valid)), rng.choice(list(valid))
    if kind == "bytes":
        content = mutate_bytes(valid[origin], valid[donor], rng)
    else:
        model = onnx.load_from_string(valid[origin])
        mutate_model(model, onnx.load_from_string(valid[donor]), rng)
        content = model.SerializeToString()
    return Case(number=number, kind=kind, origin=origin, content=content)
