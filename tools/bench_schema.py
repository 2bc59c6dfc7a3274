"""The bench file's JSON Schema: a description for each key, and the keys of each protocol and each kind of bus.

The descriptions are the docstrings below the fields of the models. Python forgets these, so they are read from the source.

The form of the schema follows Taplo, which completes keys in editors and takes descriptions from `properties`, `anyOf` and
`items` alone, beside no `$ref`. So the keys of all protocols stand in one `anyOf`, of which a member allows anything. What one
protocol does not allow is said by `if` and `then`, which validators obey.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from ..enumerators.benchfile.schema import FileSpec
from ..flashers.settings import Settings, pydantic_model
from ..transports import plugins
from ..transports.errors import ProxyflashError
from ..updates.manifests.policy import Policy

Schema = dict[str, Any]
DIALECT = "http://json-schema.org/draft-07/schema#"


def bench_schema() -> Schema:
    """The schema of a bench file, for the plugins that are installed."""
    found = schema_of(FileSpec)
    tables = found["properties"]
    flashers = dict(_loaded(plugins.FLASHERS))
    profiles = {name: schema_of(flasher.Profile) for name, flasher in flashers.items()}
    addresses = {name: schema_of(flasher.Address) for name, flasher in flashers.items()}
    for name in flashers:
        profiles[name]["title"], addresses[name]["title"] = f"profile of {name}", f"address of {name}"

    bus = only(tables["bus"]["patternProperties"])
    for kind, transport in _loaded(plugins.TRANSPORTS):
        for key, value in transport.settings_schema.items():
            bus["properties"][key] = {**value, "title": f"{key} of a {kind} bus"}
    lines = {name: profile for name, profile in profiles.items() if flashers[name].bus_kind == "serial"}
    _by_protocol(bus["properties"]["ask"]["items"], profile=lines)

    component = tables["component"]["items"]
    _by_protocol(component, address=addresses, profile=profiles)
    component["properties"]["profile"]["anyOf"].append({"type": "string"})
    [names] = tables["profile"]["patternProperties"]
    tables["profile"]["patternProperties"][names] = {"type": "object", "anyOf": [*profiles.values(), {}]}
    tables["updates"] = schema_of(Policy) | {"description": tables["updates"]["description"]}
    kept = {
        f"{name}.{key}": schema[name]
        for key, schema in (("address", addresses), ("profile", profiles))
        for name in schema
    }
    return {"$schema": DIALECT, **found, "$defs": kept}


def _loaded(group: str) -> Iterator[tuple[str, Any]]:
    """What is installed in a group, by name, but for what can't be loaded."""
    for name in plugins.names(group):
        try:
            yield name, plugins.load(group, name)
        except ProxyflashError:
            continue


def only(patterns: Mapping[str, Schema]) -> Schema:
    """The one schema of the values of a table whose keys are names."""
    [found] = patterns.values()
    return found


def _by_protocol(table: Schema, **keys: Mapping[str, Schema]) -> None:
    """Gives keys of a table what they hold by the table's `protocol`."""
    for key, schemas in keys.items():
        described = table["properties"][key]
        table["properties"][key] = {
            "title": described["title"],
            "description": described["description"],
            "anyOf": [*schemas.values(), {}],
        }
    chain: Schema = {}
    for name in reversed(list(keys["profile"])):
        tables = {key: {"if": {"type": "object"}, "then": {"$ref": f"#/$defs/{name}.{key}"}} for key in keys}
        rule = {
            "if": {"properties": {"protocol": {"const": name}}, "required": ["protocol"]},
            "then": {"properties": tables},
        }
        chain = {**rule, "else": chain} if chain else rule
    table |= chain


def schema_of(model: type[Settings]) -> Schema:
    """A model's schema, which refers to nothing."""
    found = pydantic_model(model).model_json_schema(schema_generator=_Described)
    inlined: Schema = _inlined(found, found.pop("$defs", {}))
    return inlined


class _Described(GenerateJsonSchema):
    def model_schema(self, schema: Any) -> Schema:
        found = super().model_schema(schema)
        texts = descriptions(schema["cls"].declared_by)
        for key, value in found.get("properties", {}).items():
            if key in texts:
                value["description"] = texts[key]
        return found


def _inlined(value: Any, models: Mapping[str, Schema]) -> Any:
    if isinstance(value, list):
        return [_inlined(item, models) for item in value]
    if not isinstance(value, dict):
        return value
    found = {key: _inlined(item, models) for key, item in value.items() if key != "$ref"}
    if "$ref" in value:
        found = _inlined(models[value["$ref"].rpartition("/")[2]], models) | found
    return found


def descriptions(model: type[Settings]) -> dict[str, str]:
    """The docstring below each field, on one line; a field that a subclass declares again without one keeps its text."""
    found: dict[str, str] = {}
    for kind in reversed(model.__mro__):
        if issubclass(kind, Settings):
            found |= _below_fields(kind)
    return found


def _below_fields(model: type[Settings]) -> dict[str, str]:
    path = inspect.getsourcefile(model)
    assert path is not None, model
    body = _classes(Path(path)).get(model.__qualname__, [])
    found = {}
    for field, text in pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            match text:
                case ast.Expr(value=ast.Constant(value=str(said))):
                    found[field.target.id] = " ".join(said.split())
    return found


@cache
def _classes(path: Path) -> dict[str, list[ast.stmt]]:
    """The bodies of a module's classes."""
    tree = ast.parse(path.read_bytes())
    return {node.name: node.body for node in tree.body if isinstance(node, ast.ClassDef)}
