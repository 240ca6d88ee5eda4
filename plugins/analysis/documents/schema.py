"""Checks of documents against the JSON Schemas (draft 2020-12) in `plugins/schemas/`."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import jsonschema
from referencing import Registry, Resource

from analysis.documents.errors import DocumentError

FOLDER = Path(__file__).resolve().parents[2] / "schemas"


def validate(document: object, schema: str, part: str = "") -> None:
    """Raise one DocumentError that names the place if `document` breaks `plugins/schemas/SCHEMA.schema.json`.

    `part` names a property of the document (`/properties/samples`), to check it before the document is complete.
    Schemas may refer to one another by file name (`result.schema.json#/$defs/sample`).
    """
    found = _validator(schema, part).iter_errors(document)
    problems = sorted(found, key=lambda error: (len(error.path), error.json_path))
    if not problems:
        return
    deepest = jsonschema.exceptions.best_match([problems[0]]) or problems[0]
    place = f"${part.replace('/properties/', '.')}{deepest.json_path[1:]}"
    more = f" ({len(problems) - 1} more)" if len(problems) > 1 else ""
    raise DocumentError(
        f"{schema} document",
        wanted=f"what schemas/{schema}.schema.json describes",
        found=f"{_shortened(deepest.message)} at {place}{more}",
        why="A document that breaks its schema would mislead whoever reads it.",
        next_step="if this came from a run, report it as a bug and keep the samples on the host; if by hand, "
        "correct it there.",
    )


@functools.cache
def _validator(schema: str, part: str) -> jsonschema.Draft202012Validator:
    contents = {path.name: json.loads(path.read_text(encoding="utf-8")) for path in FOLDER.glob("*.schema.json")}
    registry: Registry[Any] = Registry().with_resources(
        (name, Resource.from_contents(content)) for name, content in contents.items()
    )
    return jsonschema.Draft202012Validator(
        {"$ref": f"{schema}.schema.json#{part}"},
        registry=registry,
        format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER,
    )


def _shortened(message: str, limit: int = 240) -> str:
    return message if len(message) <= limit else f"{message[: limit // 2]} ... {message[-limit // 2 :]}"
