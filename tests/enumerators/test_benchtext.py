"""The text of a bench file in a recording: it says the same, less its secrets."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proxyflash.enumerators.benchfile import schema as benchfile
from proxyflash.enumerators.benchfile import text as benchtext
from proxyflash.enumerators.benchfile.text import without_secrets
from proxyflash.flashers.settings import SECRET, Field, Settings
from proxyflash.transports.toml_text import toml_lines

ROOT = Path(__file__).parents[2]
ECU = """
# the password of this bench is hunter0
[bus.p]
kind = "can"
interface = "socketcan"
channel = "vcan0"
[[component]]
name = "a-token-ring"
bus = "p"
protocol = "uds"
address = {request = 0x7E0, response = 0x7E8}
properties = {wifi-password = "hunter1", note = "see http://me:hunter2@pdu/off", "odd key" = "\\u007f\\u0001\\"\\\\"}
[component.profile]
memory = [{name = "f", start = 0, size = 65536}]
security = {key = "xor", secret = "C0 FF EE 42"}
[profile.unused]
security = {key = "xor", secret = "deadbeef"}
[power.a-token-ring]
off = "curl http://me:hunter3@pdu/off"
on = "curl -H 'Authorization: Bearer hunter4' http://pdu/on"
"""


def reread(text: str, folder: Path) -> benchfile.BenchFile:
    (folder / "again.toml").write_text(text, encoding="utf-8")
    return benchfile.load(folder / "again.toml")


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*/bench*.toml")), ids=lambda path: path.parent.name)
def test_the_examples_say_the_same(path: Path, tmp_path: Path) -> None:
    file = benchfile.load(path)
    text = without_secrets(file)
    again = reread(text, tmp_path)
    assert again.names == file.names
    assert list(again.spec.bus) == list(file.spec.bus)
    before, after = tomllib.loads(file.text), tomllib.loads(text)
    assert differing(before, after) <= {"secret"}
    assert "#" not in text.replace('"#', "")


def differing(before: Any, after: Any, key: str = "") -> set[str]:
    """The last key of each place at which two documents differ."""
    if isinstance(before, dict) and isinstance(after, dict) and before.keys() == after.keys():
        return {found for name in before for found in differing(before[name], after[name], name)}
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        return {found for one, other in zip(before, after, strict=True) for found in differing(one, other, key)}
    return set() if before == after and type(before) is type(after) else {key}


def test_secrets_are_left_out_wherever_they_stand(tmp_path: Path) -> None:
    (tmp_path / "bench.toml").write_text(ECU)
    file = benchfile.load(tmp_path / "bench.toml")
    text = without_secrets(file)
    for secret in ("hunter0", "hunter1", "hunter2", "hunter3", "hunter4", "C0 FF EE", "deadbeef"):
        assert secret not in text
    again = reread(text, tmp_path)
    entry = again.entries["a-token-ring"]
    assert entry.raw_profile["security"] == {"key": "xor", "secret": "00 00 00 00"}
    assert entry.address == file.entries["a-token-ring"].address
    assert entry.spec.properties["odd key"] == '\x7f\x01"\\'
    assert again.spec.power["a-token-ring"].off == "curl http://left-out@pdu/off"
    assert again.spec.power["a-token-ring"].on == "curl -H 'Authorization: left-out' http://pdu/on"


class Inner(Settings):
    code: Annotated[str, SECRET] = ""
    plain: str = ""


class Profile(Settings):
    """As a package of somebody else's may have it."""

    inner: Inner | None = None
    many: tuple[Inner, ...] = ()
    number: Annotated[int, SECRET, Field(ge=0)] = 0


def test_a_package_of_ones_own_marks_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "bench.toml").write_text(
        '[profile.x]\ninner = {code = "abc def", plain = "seen"}\nmany = [{code = "xyz"}]\nnumber = 4711\n'
    )
    file = benchfile.load(tmp_path / "bench.toml")
    monkeypatch.setattr(benchtext, "_models", lambda file: iter([Profile]))
    made = tomllib.loads(without_secrets(file))["profile"]["x"]
    left = benchtext.LEFT_OUT
    assert made == {"inner": {"code": left, "plain": "seen"}, "many": [{"code": left}], "number": 0}


texts = st.text(max_size=8)
values = st.recursive(
    st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(texts, values, max_size=4), st.sampled_from([0, 20, 100]))
def test_the_written_toml_is_read_as_the_same(document: dict[str, Any], longest: int) -> None:
    text = "\n".join(toml_lines(document, longest=longest))
    assert differing(document, tomllib.loads(text)) == set()
