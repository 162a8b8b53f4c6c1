"""Sealed JSON: its last line is the digest of what stands before it, so that a whole file says so itself."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from time_ray.limits import parse_json


def written(fields: Mapping[str, object]) -> str:
    """The fields as JSON, by which they are sealed and signed. ValueError for what JSON cannot hold, such as NaN."""
    return json.dumps(fields, indent=1, allow_nan=False)


def sealed(fields: Mapping[str, object]) -> bytes:
    """The fields as JSON, and their seal. ValueError for what JSON cannot hold, such as NaN."""
    body = written(fields)
    return f"{body}\n{hashlib.sha256(body.encode()).hexdigest()}\n".encode()


def unsealed(data: bytes) -> dict[str, Any] | None:
    """The fields of a sealed file; None if a byte is missing or was changed, or they are none."""
    body, _, seal = data.removesuffix(b"\n").rpartition(b"\n")
    if hashlib.sha256(body).hexdigest().encode() != seal:
        return None
    try:
        fields = parse_json(body)
    except ValueError:
        return None
    return fields if isinstance(fields, dict) else None
