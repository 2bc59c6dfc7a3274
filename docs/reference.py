"""Writes bench-keys.md, the reference of the bench file's keys, from the JSON Schema that `proxyflash bench schema` prints.

`python -m proxyflash.docs.reference` writes the page, the tables of errors.md, and the table of the fixtures in bench-tests.md;
a test holds the page to the schema.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from proxyflash.docs import errors_page, fixtures_table
from proxyflash.emulators.device import PartKeys
from proxyflash.tools.bench_schema import Schema, bench_schema, only, schema_of
from proxyflash.transports import plugins
from proxyflash.updates.manifests.policy import Policy

PAGE = Path(__file__).parent / "bench-keys.md"
ORDER = {
    "uds": "", "canopen": "", "katapult-can": "", "katapult-uart": "", "mboot-can": "", "mboot-uart": "", "stm32-fdcan": "",
    "stm32-can": "stm32-fdcan", "stm32-uart": "", "xcp-can": "", "xcp-uart": "",
    "stk500v1": "", "stk500v2": "stk500v1", "avr109": "stk500v1", "smp": "", "smp-udp": "smp", "xmodem": "", "ymodem": "xmodem",
    "dfu": "",
}  # fmt: skip
"""The first protocols of the page, in its order, each with the protocol before it whose keys it shares. Others follow."""
WHOLE = {0xFF, 0xFFFF, 0x1FFF_FFFF, 0xFFFF_FFFF}
"""Bounds of numbers that are written in hexadecimal."""
INTRODUCTION = """\
# Bench file: all keys

<!-- Written by `python -m proxyflash.docs.reference` from the descriptions in the code. -->

Every table of the bench file, with the values that each key takes. [bench-file.md](bench-file.md) explains the tables and has
examples. Editors show the same texts: [Completion in an editor](bench-file.md#completion-in-an-editor).

"needed" marks a key that has no default. "-" marks a key without a fixed default; its meaning says what holds then.
"""


def page() -> str:
    """The text of the page."""
    return INTRODUCTION + "\n" + "\n".join(_sections()) + "\n"


def _sections() -> Iterator[str]:
    tables = bench_schema()["properties"]
    bus, component = only(tables["bus"]["patternProperties"]), tables["component"]["items"]
    own = {key: value for key, value in bus["properties"].items() if " of a " not in value["title"]}
    yield from _table("## `[bus.NAME]`", {**bus, "properties": own})
    for kind in plugins.names(plugins.TRANSPORTS):
        keys = plugins.load(plugins.TRANSPORTS, kind).settings_schema
        if keys:
            yield from _table(f'### `kind = "{kind}"`', {"properties": keys})
    yield from _table("### `ask` of a bus", _inner(bus, "ask"))
    yield from _table("### `faults` of a bus", _inner(bus, "faults"))
    yield from _table("## `[[component]]`", component)
    for key in ("version", "version_from", "partition", "app", "images"):
        yield from _table(f"### `{key}` of a component", _inner(component, key))
    yield from _table("### `emulated` of a component", PartKeys.schema())
    yield "The other keys are those of the protocol, in the tables that follow.\n"
    yield from _table("## `[power.NAME]`", only(tables["power"]["patternProperties"]))
    yield from _table("## `[check.NAME]`", only(tables["check"]["patternProperties"]))
    yield from _table("## `[updates]`", schema_of(Policy))
    for protocol, base in (ORDER | {name: "" for name in plugins.names(plugins.FLASHERS) if name not in ORDER}).items():
        yield f"## Protocol `{protocol}`\n"
        yield f"[What it is for](bench-file.md#protocol-{protocol}) · [what it sends](protocols.md#{protocol})\n"
        flasher = plugins.load(plugins.FLASHERS, protocol)
        before = plugins.load(plugins.FLASHERS, base) if base else None
        for name in ("Address", "Profile"):
            title, key = f"### `{protocol}`: {name.lower()}", name.lower()
            schema = schema_of(getattr(flasher, name))
            if not schema["properties"]:
                yield f"{title}\n\nNo keys: the bus is the address.\n"
            elif before is None:
                yield from _all_tables(title, schema)
            else:
                yield from _differences(title, schema, schema_of(getattr(before, name)), f"[`{base}`](#{base}-{key})")
        yield from _emulated(protocol, base)


def _emulated(protocol: str, base: str) -> Iterator[str]:
    """The table `emulated` of a protocol's parts, where there are emulated parts."""
    schema, before = _emulated_keys(protocol), _emulated_keys(base) if base else None
    title = f"### `{protocol}`: emulated"
    if schema is None:
        return
    if before is None or not before["properties"].keys() <= schema["properties"].keys():
        yield from _all_tables(title, schema)
    else:
        yield from _differences(title, schema, before, f"[`{base}`](#{base}-emulated)")


def _emulated_keys(protocol: str) -> Schema | None:
    """The schema of the table, without the keys that each emulated part has."""
    if protocol not in plugins.names(plugins.EMULATORS):
        return None
    device = plugins.load(plugins.EMULATORS, protocol)
    assert device.keys is not None, (
        f"the emulated part of {protocol} has no `keys`: declare its `emulated` table as a Table"
    )
    found: Schema = device.keys.schema(device.part_names())
    return found


def _all_tables(title: str, schema: Schema) -> Iterator[str]:
    """The table of a model, and those of the tables in it."""
    yield from _table(title, schema)
    seen: dict[tuple[str, ...], str] = {}
    for key in schema["properties"]:
        inner = _inner(schema, key)
        if not inner:
            continue
        table = tuple(rows(inner))
        if table in seen:
            yield f"{title}.{key}\n\nThe keys of `{seen[table]}`.\n"
        else:
            yield from _all_tables(f"{title}.{key}", inner)
        seen.setdefault(table, key)


def _differences(title: str, schema: Schema, base: Schema, like: str) -> Iterator[str]:
    own = dict(zip(schema["properties"], rows(schema), strict=True))
    others = dict(zip(base["properties"], rows(base), strict=True))
    assert others.keys() <= own.keys(), title
    differ = [row for key, row in own.items() if row != others.get(key)]
    yield f"{title}\n"
    yield f"The keys of {like}{', but for these' if differ else ''}.\n"
    if differ:
        yield _as_table(differ)
    for key in base["properties"]:
        inner, other = _inner(schema, key), _inner(base, key)
        if inner and other and list(rows(inner)) != list(rows(other)):
            yield from _differences(f"{title}.{key}", inner, other, f"{like}")


def _table(title: str, schema: Schema) -> Iterator[str]:
    yield f"{title}\n"
    if "description" in schema:
        yield f"{' '.join(schema['description'].split())}\n"
    yield _as_table(list(rows(schema)))


def _as_table(lines: list[str]) -> str:
    return "\n".join(["| key | value | default | meaning |", "|---|---|---|---|", *lines, ""])


def _inner(schema: Schema, key: str) -> Schema:
    """The schema of the tables that a key holds; empty: it holds others."""
    value = schema["properties"][key]
    for choice in value.get("anyOf", [value]):
        found: Schema = choice.get("items", choice)
        if found.get("properties") and len(value.get("anyOf", [])) < 3:
            return found
    return {}


def rows(schema: Schema) -> Iterator[str]:
    """The rows of a table's keys: key, values, default, meaning."""
    for key, value in schema["properties"].items():
        cells = (
            f"`{key}`",
            _values(value),
            _default(value, needed=key in schema.get("required", ())),
            value["description"],
        )
        yield f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


def _values(value: Schema) -> str:
    if "anyOf" in value:
        kinds = [_values(choice) for choice in value["anyOf"] if choice and choice.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    if "const" in value:
        return _toml(value["const"])
    if "enum" in value:
        return ", ".join(map(_toml, value["enum"]))
    kinds = value.get("type", "any")
    if isinstance(kinds, list):
        return " or ".join(_values({"type": kind}) for kind in kinds)
    if kinds == "array":
        return f"list of {_plural(value['items'])}"
    if kinds == "object":
        return "table"
    if value.get("format") == "binary":
        return "bytes in hexadecimal"
    return {"boolean": "true or false", "string": "text"}.get(kinds, str(kinds)) + _range(value)


def _plural(value: Schema) -> str:
    kinds = {"table": "tables", "integer": "integers", "text": "texts", "bytes in hexadecimal": "bytes in hexadecimal"}
    found = _values(value)
    return kinds.get(
        found, "numbers" if found.startswith("integer") else "tables" if "properties" in value else "texts"
    )


def _range(value: Schema) -> str:
    low, high = value.get("minimum"), value.get("maximum")
    above = value.get("exclusiveMinimum")
    least = "" if low is None else f", from {_number(low, value)}"
    least += "" if above is None else f", above {_number(above, value)}"
    most = (
        "" if high is None else f" to {_number(high, value)}" if low is not None else f", up to {_number(high, value)}"
    )
    return least + most


def _number(number: Any, value: Schema) -> str:
    is_rate = value.get("description", "").startswith("Bit rate")
    if (
        value.get("type") == "integer"
        and number
        and not is_rate
        and (value.get("maximum") in WHOLE or number >= 0x1_0000)
    ):
        return f"0x{number:02X}" if number < 0x100 else f"0x{number:04X}"
    return str(int(number) if float(number).is_integer() and value.get("type") == "integer" else number)


def _default(value: Schema, *, needed: bool) -> str:
    if needed:
        return "needed"
    default = value.get("default", {} if _values(value).startswith("table") else None)
    if default is None:
        return "-"
    return "`{}`" if isinstance(default, dict) else f"`{_toml(default, value)}`"


def _toml(value: Any, schema: Schema | None = None) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + value.replace("\r", "\\r") + '"'
    if isinstance(value, list):
        inner = (schema or {}).get("items")
        return f"[{', '.join(_toml(item, inner) for item in value)}]"
    integers = [kind for kind in (schema or {}).get("anyOf", [schema or {}]) if kind.get("type") == "integer"]
    return _number(value, integers[0] if integers else {})


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    errors_page.PAGE.write_text(errors_page.page(), encoding="utf-8")
    fixtures_table.PAGE.write_text(fixtures_table.page(), encoding="utf-8")
