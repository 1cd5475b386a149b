"""The events of ``broadcast.v1.json`` as the schema of the reference describes them."""

from __future__ import annotations

import json
from typing import Any

import jsonschema.validators

from .programs import ROOT

SCHEMA = json.loads((ROOT / "docs/reference/broadcast.v1.schema.json").read_text(encoding="utf-8"))
# Made once: to check the schema itself costs far more than an event.
_VALIDATOR = jsonschema.validators.validator_for(SCHEMA)(SCHEMA)


def checked(body: bytes) -> dict[str, Any]:
    """Return an event, which must be as the schema says."""
    event: dict[str, Any] = json.loads(body)
    _VALIDATOR.validate(event)
    return event
