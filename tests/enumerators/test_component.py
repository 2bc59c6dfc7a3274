"""The component record and selection, as Azure Device Update's component enumerators have them."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from proxyflash.enumerators.component import Component, Presence, document, matches, parse_selector, select
from proxyflash.enumerators.errors import SelectorWrong

LEFT = Component(
    id="serial-1",
    name="left-motor",
    group="motors",
    manufacturer="Contoso",
    model="virtual-motor",
    version="1.0",
    presence=Presence.OK,
    bus="powertrain",
    protocol="uds",
    where="uds 0x7E0/0x7E8",
    properties={"color": "red"},
)
RIGHT = replace(LEFT, id="serial-2", name="right-motor")
CAMERA = replace(LEFT, id="serial-3", name="camera", group="cameras", model="virtual-camera", version="")


def test_the_record_has_version_and_status_where_readers_look() -> None:
    assert LEFT.record() == {
        "id": "serial-1",
        "name": "left-motor",
        "group": "motors",
        "manufacturer": "Contoso",
        "model": "virtual-motor",
        "version": "1.0",
        "properties": {"color": "red", "status": "ok", "version": "1.0"},
    }
    assert "version" not in CAMERA.record()["properties"]


def test_the_document_is_json_of_strings() -> None:
    listed = json.loads(document([LEFT, CAMERA]))["components"]
    assert [item["name"] for item in listed] == ["left-motor", "camera"]
    assert json.loads(document([])) == {"components": []}


@pytest.mark.parametrize(
    ("selector", "names"),
    [
        ({"group": "motors"}, ["left-motor", "right-motor"]),
        ({"name": "right-motor"}, ["right-motor"]),
        ({"manufacturer": "Contoso", "model": "virtual-camera"}, ["camera"]),
        ({"manufacturer": "Contoso"}, ["left-motor", "right-motor", "camera"]),
        ({"manufacturer": "Other", "model": "other"}, []),
        ({"group": "Motors"}, []),
        ({"group": ""}, []),
        ({"color": "red"}, ["left-motor", "right-motor", "camera"]),
        ({"color": "Red"}, []),
        ({"color": "red", "group": "cameras"}, ["camera"]),
        ({"status": "ok", "version": "1.0"}, ["left-motor", "right-motor"]),
        ({"shape": "round"}, []),
        ({"properties": "red"}, []),
        ({"version": ""}, []),
        ({}, ["left-motor", "right-motor", "camera"]),
    ],
)
def test_every_pair_must_equal_a_value(selector: dict[str, str], names: list[str]) -> None:
    assert [item.name for item in select([LEFT, RIGHT, CAMERA], [selector])] == names


def test_several_selectors_are_a_union_in_the_enumerator_s_order() -> None:
    found = select([LEFT, RIGHT, CAMERA], [{"name": "camera"}, {"name": "left-motor"}, {"group": "motors"}])
    assert [item.name for item in found] == ["left-motor", "right-motor", "camera"]


@pytest.mark.parametrize("text", ["", "[]", "7", '{"a": 1}', '{"a": null}', "{", "[" * 50_000], ids=lambda t: t[:9])
def test_what_is_no_selector(text: str) -> None:
    with pytest.raises(SelectorWrong):
        parse_selector(text)


@given(st.dictionaries(st.text(), st.text()))
def test_any_object_of_strings_is_a_selector(selector: dict[str, str]) -> None:
    assert parse_selector(json.dumps(selector)) == selector
    assert matches(LEFT, selector) in (True, False)
