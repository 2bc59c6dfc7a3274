"""The bench file's JSON Schema: a description for each key, and the keys of each protocol, each kind of bus and emulated part.

The descriptions are the docstrings below the fields of the models and of the emulated parts' tables.

The form of the schema follows Taplo, which completes keys in editors and takes descriptions from `properties`, `anyOf` and
`items` alone, beside no `$ref`. So the keys of all protocols stand in one `anyOf`, of which a member allows anything. What one
protocol does not allow is said by `if` and `then`, which validators obey.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from ..enumerators.benchfile.schema import FileSpec
from ..flashers.settings import Settings, pydantic_model
from ..transports import plugins
from ..transports.errors import ProxyflashError
from ..transports.field_texts import field_texts
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
    emulated = {name: schema for name, part in _loaded(plugins.EMULATORS) if (schema := part.keys_schema()) is not None}
    by_key = {"address": addresses, "profile": profiles, "emulated": emulated}
    for key, schemas in by_key.items():
        for name, schema in schemas.items():
            schema["title"] = f"{key} of {name}"

    bus = only(tables["bus"]["patternProperties"])
    for kind, transport in _loaded(plugins.TRANSPORTS):
        for key, value in transport.settings_schema.items():
            bus["properties"][key] = {**value, "title": f"{key} of a {kind} bus"}
    lines = {name: profile for name, profile in profiles.items() if flashers[name].bus_kind == "serial"}
    _by_protocol(bus["properties"]["ask"]["items"], profile=lines)

    component = tables["component"]["items"]
    _by_protocol(component, **by_key)
    component["properties"]["profile"]["anyOf"].append({"type": "string"})
    [names] = tables["profile"]["patternProperties"]
    tables["profile"]["patternProperties"][names] = {"type": "object", "anyOf": [*profiles.values(), {}]}
    tables["updates"] = schema_of(Policy) | {"description": tables["updates"]["description"]}
    kept = {f"{name}.{key}": schemas[name] for key, schemas in by_key.items() for name in schemas}
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
        tables = {
            key: {"if": {"type": "object"}, "then": {"$ref": f"#/$defs/{name}.{key}"}}
            for key, schemas in keys.items()
            if name in schemas
        }
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
        texts = field_texts(schema["cls"].declared_by)
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
