"""The published shape of a run as JSON Schema, made from the types that are read and written."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from orchestrator.bundle.document import FORMAT, SCHEMA_VERSION, RunDocument


def run_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of ``run.json`` at :data:`orchestrator.bundle.document.SCHEMA_VERSION`."""
    schema = _as_written(TypeAdapter(RunDocument).json_schema())
    properties = schema["properties"]
    properties["format"] = {"const": FORMAT}
    properties["schema_version"] = {"const": SCHEMA_VERSION}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": f"A run of muster, schema version {SCHEMA_VERSION}",
    }


def _as_written(schema: Any) -> Any:
    """Return the schema with fields by their names in JSON: without the underscore that ends a name such as pass_."""
    if isinstance(schema, list):
        return [_as_written(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: _as_written(value) for key, value in schema.items() if key not in ("title", "default")}
    if "properties" in found:
        found["properties"] = {name.rstrip("_"): value for name, value in found["properties"].items()}
        found["required"] = [name.rstrip("_") for name in found.get("required", [])]
    return found
