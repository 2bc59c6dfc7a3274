"""The bench file: whatever is wrong with it is reported with the file, the line and the key, and leads to exit status 12."""

from __future__ import annotations

import os
import tomllib
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from proxyflash.enumerators.benchfile.schema import (
    AskSpec,
    BusSpec,
    ComponentSpec,
    FaultSpec,
    PowerSpec,
    VersionQuestion,
    load,
)
from proxyflash.enumerators.benchfile.toml_positions import key_lines, nearest
from proxyflash.enumerators.errors import BenchError, BenchKey, BenchMissing, BenchName, BenchSyntax
from proxyflash.flashers.avr.profile import AvrMemoryRun
from proxyflash.flashers.settings import Key, Limits, Settings, is_settings
from proxyflash.flashers.uds.profile import OwnStep
from proxyflash.transports import plugins
from proxyflash.transports.errors import ExitStatus, PluginUnknown, ProxyflashError

EXAMPLE = Path(__file__).parents[2] / "examples" / "three_sensors" / "bench.toml"


def refused(folder: Path, text: str) -> ProxyflashError:
    path = folder / "bench.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ProxyflashError) as caught:
        load(path)
    assert caught.value.exit_status is ExitStatus.BAD_FILE
    assert caught.value.remedy
    return caught.value


def line_of(text: str, mark: str) -> int:
    return next(number for number, line in enumerate(text.splitlines(), 1) if mark in line)


def test_the_example_holds() -> None:
    file = load(EXAMPLE)
    assert list(file.entries) == ["front-radar", "imu", "camera"]
    assert list(file.spec.bus) == ["powertrain", "imu-uart", "usb"]
    assert file.spec.bus["powertrain"].settings == {"bitrate": 500_000}


def test_keys_of_the_library_are_passed_on_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "bench.toml"
    path.write_text('[bus.b]\nkind = "can"\ninterface = "pcan"\nfd = true\nextra = {deep = [1, "a", 2.5]}\n')
    assert load(path).spec.bus["b"].settings == {"interface": "pcan", "fd": True, "extra": {"deep": [1, "a", 2.5]}}


# Each key wrong in turn.

COMPONENT = {name: plugins.load(plugins.FLASHERS, name).bus_kind for name in plugins.names(plugins.FLASHERS)}


@dataclass(frozen=True)
class Table:
    """One table of the file. `before`: what the file has above it. `keys`: those that a whole one has."""

    model: type[Settings]
    dotted: str
    header: str
    before: str
    keys: dict[str, str]

    def text(self, changed: dict[str, str]) -> str:
        keys = {**self.keys, **changed}
        lines = [f"{key} = {value}  # {key}!" for key, value in keys.items() if value]
        return "\n".join([self.before, f"{self.header}  # table!", *lines, ""])


ADDRESSES = {
    "uds": {"request": "0x7E0"},
    "canopen": {"node": "5"},
    "katapult-can": {"uuid": '"0e0d81e4210c"'},
    "xcp-can": {"request": "0x667", "response": "0x7E1"},
}
"""What an address can't do without."""


def component_text(protocol: str, *, address: bool = True) -> str:
    text = f'[bus.b]\nkind = "{COMPONENT[protocol]}"\n[[component]]\nname = "c"\nbus = "b"\nprotocol = "{protocol}"'
    keys = ", ".join(f"{key} = {value}" for key, value in ADDRESSES.get(protocol, {}).items())
    return text + f"\naddress = {{{keys}}}" * (address and bool(keys))


def needed(model: type[Settings]) -> dict[str, str]:
    values: dict[str, str] = {
        "data": '"00"', "start": "0", "size": "4096", "erase_unit": "1024", "file": '"a"',
    }  # fmt: skip
    return {name: values[name] for name, info in model.keys_declared.items() if info.is_needed}


def submodel(info: Key) -> tuple[type[Settings], bool] | None:
    """The table that a key takes, and whether it takes a list of them."""

    def walk(annotation: Any, many: bool) -> Iterator[tuple[type[Settings], bool]]:
        if is_settings(annotation):
            yield annotation, many
        for argument in typing.get_args(annotation):
            yield from walk(argument, many or typing.get_origin(annotation) in (tuple, list))

    return next(walk(info.annotation, False), None)


def protocol_tables() -> Iterator[Table]:
    for protocol in plugins.names(plugins.FLASHERS):
        flasher = plugins.load(plugins.FLASHERS, protocol)
        keys = ADDRESSES.get(protocol, {})
        before = component_text(protocol, address=False)
        yield Table(flasher.Address, "component.address", "[component.address]", before, keys)
        before = component_text(protocol)
        yield Table(flasher.Profile, "component.profile", "[component.profile]", before, {})
        for name, info in flasher.Profile.keys_declared.items():
            if (sub := submodel(info)) is not None:
                place = f"component.profile.{name}"
                if sub[0] is OwnStep:
                    ordered = f'{before}\n[component.profile]\norder = ["own", "programming", "download"]'
                    yield Table(OwnStep, place, f"[[{place}]]", ordered, {"name": '"own"', "session": "2"})
                    continue
                if sub[0] is AvrMemoryRun:
                    sized = f"{before}\n[component.profile]\nboot_size = 1024"
                    yield Table(sub[0], place, f"[[{place}]]", sized, needed(sub[0]))
                    continue
                yield Table(sub[0], place, f"[[{place}]]" if sub[1] else f"[{place}]", before, needed(sub[0]))


TABLES = [
    Table(BusSpec, "bus.b", "[bus.b]", "", {"kind": '"can"', "emulated": "true"}),
    Table(AskSpec, "bus.b.ask", "[[bus.b.ask]]", '[bus.b]\nkind = "serial"', {"protocol": '"stk500v1"'}),
    Table(FaultSpec, "bus.b.faults", "[bus.b.faults]", '[bus.b]\nkind = "can"\nemulated = true', {}),
    Table(
        ComponentSpec,
        "component",
        "[[component]]",
        '[bus.b]\nkind = "usb"',
        {"name": '"c"', "bus": '"b"', "protocol": '"dfu"'},
    ),
    Table(
        VersionQuestion,
        "component.version",
        "[component.version]",
        component_text("stm32-uart"),
        {"send": '"V"', "match": "'([0-9.]+)'"},
    ),
    Table(PowerSpec, "power.c", "[power.c]", component_text("dfu"), {"off": '"a"', "on": '"b"'}),
    *protocol_tables(),
]
KEYS = [(table, key) for table in TABLES for key in table.model.keys_declared]


def ids(value: object) -> str | None:
    return f"{value.dotted} {value.model.__name__}" if isinstance(value, Table) else None


@pytest.mark.parametrize("table", TABLES, ids=ids)
def test_a_table_that_holds(table: Table, tmp_path: Path) -> None:
    path = tmp_path / "bench.toml"
    path.write_text(table.text({}))
    load(path)


@pytest.mark.parametrize(("table", "key"), KEYS, ids=ids)
def test_a_key_of_the_wrong_type(table: Table, key: str, tmp_path: Path) -> None:
    text = table.text({key: "[[]]"})  # No key takes a list of lists.
    error = refused(tmp_path, text)
    assert isinstance(error, BenchKey)
    assert error.cause.startswith(f"{tmp_path}/bench.toml:{line_of(text, f'{key}!')}: {table.dotted}.{key} = ")


def simple(info: Key) -> set[type]:
    """The plain types that a key takes."""
    bare = typing.get_args(info.annotation)[0] if info.marks else info.annotation
    found = {bare, *typing.get_args(bare)}
    return {kind for kind in (bool, int, float, str) if kind in found}


@pytest.mark.parametrize(("table", "key"), KEYS, ids=ids)
def test_no_value_is_taken_for_one_of_another_type(table: Table, key: str, tmp_path: Path) -> None:
    takes = simple(table.model.keys_declared[key])
    if not takes:
        return
    for kind, value in ((str, '"1"'), (bool, "true"), (int, "1"), (float, "1.5")):
        if kind in takes or (kind is int and float in takes):
            continue
        error = refused(tmp_path, table.text({key: value}))
        assert f": {table.dotted}.{key} = " in error.cause, value


def limits(info: Key) -> Iterator[str]:
    """Values just outside of what a key allows."""

    outside = {"ge": -1, "gt": 0, "lt": 0, "le": 1}

    def inside(annotation: Any, form: str) -> Iterator[str]:
        for mark in getattr(annotation, "__metadata__", ()):
            if isinstance(mark, Limits):
                yield from (form.format(mark.limits[name] + by) for name, by in outside.items() if name in mark.limits)
        many = typing.get_origin(annotation) in (tuple, list)
        for argument in typing.get_args(annotation):
            yield from inside(argument, "[{}]" if many else form)

    yield from inside(info.annotation, "{}")


def test_limits_are_found() -> None:
    found = {(table.dotted, key, value) for table, key in KEYS for value in limits(table.model.keys_declared[key])}
    assert ("bus.b", "pace", "-1") in found
    assert ("component", "boot_timeout", "601") in found
    assert ("component.profile.identifiers", "version", "[65536]") in found
    assert ("component.address", "request", "536870912") in found
    assert ("component.profile.timings", "p2", "0") in found
    assert ("component.profile", "write_alignment", "1025") in found
    assert len(found) > 100


@pytest.mark.parametrize(("table", "key"), KEYS, ids=ids)
def test_a_key_out_of_range(table: Table, key: str, tmp_path: Path) -> None:
    for value in limits(table.model.keys_declared[key]):
        text = table.text({key: value})
        error = refused(tmp_path, text)
        assert error.cause.startswith(f"{tmp_path}/bench.toml:{line_of(text, f'{key}!')}: {table.dotted}.{key} = ")


@pytest.mark.parametrize("table", [table for table in TABLES if table.model is not BusSpec], ids=ids)
def test_an_unknown_key(table: Table, tmp_path: Path) -> None:
    text = table.text({"nonsense": "1"})
    error = refused(tmp_path, text)
    where = f"{tmp_path}/bench.toml:{line_of(text, 'nonsense!')}"
    assert error.cause == f"{where}: unknown key {table.dotted}.nonsense"


@pytest.mark.parametrize(
    ("table", "key"), [(table, key) for table, key in KEYS if table.model.keys_declared[key].is_needed], ids=ids
)
def test_a_missing_key(table: Table, key: str, tmp_path: Path) -> None:
    text = table.text({key: ""})
    error = refused(tmp_path, text)
    assert error.cause == f"{tmp_path}/bench.toml:{line_of(text, 'table!')}: {table.dotted}.{key} is missing"


# What a key says contradicts something else. "!" marks the line that is named.

CAN = '[bus.b]\nkind = "can"\ninterface = "virtual"\n'
RADAR = '[[component]]\nname = "radar"\nbus = "b"\nprotocol = "uds"\naddress = {request = 0x7E0}\n'
WRONG = [
    ("unknown kind", '[bus.b]\nkind = "lin"  #!', BenchKey, ", ".join(plugins.names(plugins.TRANSPORTS))),
    ("unknown protocol", CAN + RADAR.replace('"uds"', '"flexray"  #!'), PluginUnknown, ", ".join(COMPONENT)),
    ("two of one name", CAN + RADAR + RADAR.replace('"radar"', '"radar"  #!'), BenchName, "two components"),
    ("one part twice", CAN + RADAR + RADAR.replace("]]", "]]  #!").replace('"radar"', '"b"'), BenchName, "'radar'"),
    ("unknown bus", CAN + RADAR.replace('"b"', '"c"  #!'), BenchName, "'c' that the file doesn't have; it has: b"),
    ("no bus at all", RADAR.replace('"b"', '"b"  #!'), BenchName, "it has: none"),
    ("misspelt bus", CAN + RADAR.replace('"b"', '"B"  #!'), BenchName, "doesn't have (did you mean 'b'?); it has: b"),
    ("misspelt protocol", CAN + RADAR.replace('"uds"', '"udss"  #!'), PluginUnknown, "'udss' (did you mean 'uds'?)"),
    ("misspelt kind", CAN.replace('"can"', '"cna"  #!'), BenchKey, "(did you mean 'can'?)"),
    ("misspelt key", CAN + RADAR + 'grup = "a"  #!', BenchKey, "unknown key component.grup (did you"),
    ("misspelt key in a list", CAN + RADAR + "[component.profile]\nmemory = [{start = 0, sise = 8}]  #!", BenchKey,
     "(did you mean 'size'?)"),
    ("misspelt step", CAN + RADAR + '[component.profile]  #!\norder = ["programing"]', BenchKey, "did you mean 'programming'"),
    ("unknown profile", CAN + RADAR + 'profile = "acme"  #!', BenchName, "no profile 'acme'; there are: none"),
    ("protocol on another kind", CAN + RADAR.replace('"uds"', '"dfu"  #!'), BenchKey, "kind usb, but 'b' is of kind can"),
    ("emulated on a real bus", CAN + RADAR + 'emulated = {part = "x"}  #!', BenchKey, "'b' is not an emulated bus"),
    ("a bus nearly emulated", CAN + "emulatd = true  #!\npace = 0.0", BenchKey,
     "bus.b: unknown key 'emulatd' (did you mean 'emulated'?)"),
    ("pace of a real bus", CAN + "pace = 0.5  #!", BenchKey, "bus.b.pace is for emulated buses only"),
    ("faults of a real bus", CAN + "faults = {drop = 0.5}  #!", BenchKey, "bus.b.faults is for emulated buses only"),
    ("power of nothing", CAN + RADAR + '[power.lidar]  #!\noff = "a"\non = "b"', BenchName, "no component 'lidar'"),
    ("empty command", CAN + RADAR + '[power.radar]\noff = ""  #!\non = "b"', BenchKey, "power.radar.off = ''"),
    ("name with a space", CAN + RADAR.replace('"radar"', '"the radar"  #!'), BenchKey, "should be of ASCII letters"),
    ("name with a newline", CAN + RADAR.replace('"radar"', r'"radar\n"  #!'), BenchKey, "component.name"),
    ("name of 65", CAN + RADAR.replace('"radar"', f'"{"r" * 65}"  #!'), BenchKey, "component.name"),
    ("bus with a space", '["bus"."my bus"]  #!\nkind = "can"', BenchKey, "bus.my bus"),
    ("a key at the top", "buses = 1  #!", BenchKey, "unknown key buses"),
    ("components as a table", "[component]  #!\nname = 1", BenchKey, "write [[component]], for each component one"),
    ("a date", CAN + "since = 2024-01-01  #!", BenchKey, "is a date"),
    ("a time", CAN + "since = 07:32:00  #!", BenchKey, "is a date or time"),
    ("nan", CAN + RADAR + "boot_timeout = nan  #!", BenchKey, "component.boot_timeout = nan"),
    ("infinity", CAN + "bitrate = inf  #!", BenchKey, "bus.b.bitrate = inf"),
    ("65 bits", CAN + "bitrate = 0x1_0000_0000_0000_0000  #!", BenchKey, "more than 64 bits"),
    ("thousands of bits", CAN + f"bitrate = 0x{'f' * 5000}  #!", BenchKey, "more than 64 bits"),
    ("thousands of digits", CAN + f"bitrate = {'9' * 5000}  #!", BenchSyntax, "too many digits"),
    ("deep", CAN + f"x = {'[' * 60}{']' * 60}  #!", BenchKey, "nested too deeply"),
    ("ids without a target", CAN + RADAR.replace("request = 0x7E0}", 'addressing = "extended", request = 1}  #!'),
     BenchKey, "extended addressing needs target"),
    ("a memory that overlaps", CAN + RADAR + "[component.profile]\nmemory = [  #!\n{start = 0, size = 8}, {start = 4, "
     "size = 8},\n]", BenchKey, "overlap"),
    ("in a list over many lines", CAN + RADAR + "[component.profile]\nmemory = [\n{start = 0, size = 8},\n\n"
     "{start = 9,\tsize = 0},  #!\n]", BenchKey, "component.profile.memory.size = 0"),
    ("no hexadecimal", CAN + RADAR + '[component.profile.fingerprint]\ndata = "xy"  #!', BenchKey, "takes hexadecimal bytes"),
    ("in a shared profile", CAN + RADAR + 'profile = "p"\n[profile.p]\nread_block = 0  #!', BenchKey,
     "profile.p.read_block = 0"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "kind", "phrase"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG])
def test_what_contradicts(text: str, kind: type[BenchError], phrase: str, tmp_path: Path) -> None:
    error = refused(tmp_path, text)
    assert type(error) is kind
    where = f"{tmp_path}/bench.toml:"
    line = line_of(text, "#!") if "{start = 4" not in text else line_of(text, "[component.profile]")
    assert error.cause.startswith(f"{where}{line}: ")
    assert phrase in error.cause
    assert len(error.cause) < 400


@pytest.mark.parametrize(
    ("match", "phrase"),
    [
        ("FW [0-9.]+", "needs one group"),
        ("FW ([0-9.]+", "no regular expression"),
        ("(?u)FW ([0-9.]+)", "no regular expression"),
        (r"\\u0046W ([0-9.]+)", "no regular expression"),
        ("(a{9999999999999999999})", "no regular expression"),
        ("(" * 3000 + ")" * 3000, "no regular expression"),
        ("", "needs one group"),
    ],
    ids=lambda text: text[:20],
)
def test_a_bad_pattern(match: str, phrase: str, tmp_path: Path) -> None:
    text = f'{component_text("stm32-uart")}\nversion = {{send = "V", match = "{match}"}}  #!'
    error = refused(tmp_path, text)
    assert type(error) is BenchKey
    assert error.cause.startswith(f"{tmp_path}/bench.toml:{line_of(text, '#!')}: component.version.match = ")
    assert phrase in error.cause


# What is not a file, not text, not TOML.


@pytest.mark.parametrize(
    ("text", "line", "phrase"),
    [
        ("[bus.b]\nkind = \n", 2, "invalid value"),
        ("[bus.b\n", 1, "column"),
        ("\n\na = 1\na = 2", 4, "overwrite"),
        ('a = "x\n', 1, "column"),
        ('a = """x\n', 1, "end of the file"),
        ("[a]\n[a]", 2, "twice"),
        ("a = 1979-99-99", 1, "column"),
        ("a = " + "[" * 100_000, 0, "nested too deeply"),
        ("\x00", 1, "column"),
    ],
)
def test_what_is_no_toml(text: str, line: int, phrase: str, tmp_path: Path) -> None:
    error = refused(tmp_path, text)
    assert type(error) is BenchSyntax
    assert error.cause.startswith(f"{tmp_path}/bench.toml:{line}: " if line else f"{tmp_path}/bench.toml: ")
    assert phrase in error.cause


def test_what_is_no_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "bench.toml"
    path.write_bytes(b'[bus.b]\nkind = "can"\n# caf\xe9\n')
    with pytest.raises(BenchSyntax) as caught:
        load(path)
    assert caught.value.cause == f"{path}:3: byte 0xE9 is not UTF-8"


def test_a_byte_order_mark_and_other_line_ends_are_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "bench.toml"
    path.write_bytes(b"\xef\xbb\xbf" + CAN.encode().replace(b"\n", b"\r\n"))
    assert list(load(path).spec.bus) == ["b"]
    path.write_bytes(b"\xef\xbb\xbf" + CAN.encode().replace(b"\n", b"\r\n") + b"pace = 2\r\n")
    with pytest.raises(BenchKey, match=r"bench\.toml:4: bus\.b\.pace"):
        load(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BenchMissing, match=r"none\.toml: No such file"):
        load(tmp_path / "none.toml")
    with pytest.raises(BenchMissing, match="is a folder"):
        load(tmp_path)
    with pytest.raises(BenchMissing, match="name too long"):
        load(tmp_path / ("x" * 300))
    (tmp_path / "file").touch()
    with pytest.raises(BenchMissing, match="Not a directory"):
        load(tmp_path / "file" / "bench.toml")


def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = tmp_path / "bench.toml"
    path.touch(0o000)
    tmp_path.chmod(0o755)
    if os.geteuid() == 0:
        # Root may read everything: be somebody else for a moment.
        for folder in (tmp_path.parent, tmp_path.parent.parent):
            folder.chmod(folder.stat().st_mode | 0o011)
        os.seteuid(65534)
    try:
        with pytest.raises(BenchMissing) as caught:
            load(path)
    finally:
        if os.getuid() == 0:
            os.seteuid(0)
    assert "Permission denied" in caught.value.cause
    assert "chmod" in caught.value.remedy


# On which line a key stands.

LINES = '''
a.b = 1                                     # a b
[bus."x.y"]                                 # bus x.y
kind = """multi                             # bus x.y kind
[not]
k = 2 """
  [[ component ]]                           # component 0
name = 'q'                                  # component 0 name
address = {request = 1, "re.sp" = [1,       # component 0 address re.sp 0
 2]}                                        # component 0 address re.sp 1
memory = [                                  # component 0 memory
  {start = 1, size = 2},                    # component 0 memory 0 size
  #a = [
  {start = 3, size = {a = "]}#"}},          # component 0 memory 1 size a
]
[component.emulated]                        # component 0 emulated
part = "x"                                  # component 0 emulated part
[[component]]                               # component 1
name = "w"                                  # component 1 name
[component.profile.entry]                   # component 1 profile entry
reset = "dtr"                               # component 1 profile entry reset
'''


def test_the_line_of_each_key() -> None:
    lines = key_lines(LINES)
    for number, line in enumerate(LINES.splitlines(), 1):
        words = line.partition("  # ")[2].split()
        if words:
            assert lines[tuple(int(word) if word.isdigit() else word for word in words)] == number, words
    assert nearest(lines, ("component", 0, "memory", 1, "size", "nothing")) == line_of(LINES, "start = 3")
    assert nearest(lines, ("component", 1, "bus")) == line_of(LINES, "[[component]]")
    assert nearest(lines, ("power",)) == 0


keys = st.text("ab.-_ \"'\\#=[]é1", min_size=1, max_size=4)
scalars = st.one_of(
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.booleans(),
    st.text("a\"'\\#=[]{},\n\té", max_size=12),
    st.dates(),
)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3))


def quoted(text: str) -> str:
    escaped = text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n").replace("\t", r"\t")
    return f'"{escaped}"'


def written(value: Any) -> str:
    """A value as TOML."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            # A text of several lines as one; its quotes escaped, for it may end with one.
            return f'"""\n{quoted(value)[1:-1]}"""' if "\n" in value else quoted(value)
        case list():
            return "[ # ]\n" + "".join(f"{written(item)}, # ,\n" for item in value) + "]"
        case dict():
            return "{" + ", ".join(f"{quoted(key)} = {written(item)}" for key, item in value.items()) + "}"
        case float():
            return repr(value)
    return str(value)


def document(data: dict[str, Any]) -> str:
    return "".join(f"{quoted(key)} = {written(value)}\n" for key, value in data.items())


def places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*place, key)
        yield from places(item, (*place, key))


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(keys, values, max_size=4))
def test_every_key_that_tomllib_finds_has_a_line(data: dict[str, Any]) -> None:
    text = document(data)
    lines = key_lines(text)
    for place in places(tomllib.loads(text)):
        line = text.splitlines()[lines[place] - 1] if "\n" in text else text
        assert isinstance(place[-1], int) or quoted(place[-1]) in line


# Whatever it holds.


def only_bench_errors(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    error: ProxyflashError | None = None
    try:
        load(path)
    except (BenchError, PluginUnknown) as raised:
        error = raised
    assert error is None or error.exit_status is ExitStatus.BAD_FILE
    assert error is None or (error.cause.startswith(str(path)) and len(error.cause) < 1000)


once = settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))


@once
@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
@example(b"\xef\xbb\xbf")
@example(b"a = 1e999")
def test_any_bytes(tmp_path: Path, data: bytes) -> None:
    only_bench_errors(tmp_path / "bench.toml", data)


fields = st.sampled_from(sorted({key for _, key in KEYS} | {"bus", "component", "profile", "power", "b", "c", "uds"}))
likely = st.recursive(
    scalars | st.sampled_from(["can", "serial", "usb", "uds", "stm32-uart", "dfu", "b", "c"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(fields, inner, max_size=5),
    max_leaves=20,
)


@once
@given(st.dictionaries(fields, likely, max_size=4))
def test_any_value_at_any_key(tmp_path: Path, data: dict[str, Any]) -> None:
    only_bench_errors(tmp_path / "bench.toml", document(data).encode())


@once
@given(st.data())
def test_an_example_with_a_part_torn_out_or_put_in(tmp_path: Path, data: st.DataObject) -> None:
    whole = EXAMPLE.read_bytes()
    start = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(start, min(len(whole), start + 40)))
    put = data.draw(st.sampled_from([b"", b'"', b"[", b"]", b"=", b"\n", b"#", b"0x", b"[[component]]\n", b"\xff"]))
    only_bench_errors(tmp_path / "bench.toml", whole[:start] + put + whole[end:])


@pytest.mark.parametrize("key", [".".join(["a"] * 200_000), ' . "b"' * 100_000, ".'c'" * 100_000])
def test_a_dotted_key_without_end_is_refused_before_it_is_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setattr(tomllib, "loads", lambda text: pytest.fail("it was parsed"))
    path = tmp_path / "bench.toml"
    path.write_text(f"x = 1\na{key} = 1\n")
    with pytest.raises(BenchSyntax, match=r"bench.toml:2: nested too deeply"):
        load(path)


def test_a_file_that_is_too_large_is_not_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tomllib, "loads", lambda text: pytest.fail("it was parsed"))
    path = tmp_path / "bench.toml"
    path.write_bytes(b"#" * (4 << 20) + b"\n")
    with pytest.raises(BenchSyntax, match="more than 4,194,304 bytes"):
        load(path)


CATERINA = """
[bus.b]
kind = "serial"
url = "loop://"
probe = {probe}
[[component]]
name = "motor"
bus = "b"
protocol = "{protocol}"
version = {{send = "{send}", match = "([0-9.]+)"}}  #!
"""


@pytest.mark.parametrize(
    ("send", "does"),
    [
        ("version?\\r", "at 'e' its bootloader erases or writes memory"),
        ("VER?\\r", "at 'E' its bootloader leaves it"),
        ("v\\n\\u0042", "at 'B' its bootloader erases or writes memory"),
        ("lock", "at 'l' its bootloader writes fuses or lock bits"),
    ],
)
def test_a_question_that_its_bootloader_takes_for_commands(tmp_path: Path, send: str, does: str) -> None:
    """AVR109, table 2: 'e' is Chip Erase, and reaches a loader that waits after a flash that was cut."""
    text = CATERINA.format(probe="false", protocol="avr109", send=send)
    error = refused(tmp_path, text)
    assert isinstance(error, BenchKey)
    assert does in error.cause
    assert f":{line_of(text, '#!')}" in error.cause
    assert "probe = true" in (error.remedy or "")


@pytest.mark.parametrize(
    ("probe", "protocol", "send"),
    [("true", "avr109", "version?\\r"), ("false", "avr109", "V\\r"), ("false", "stk500v2", "version?\\r")],
)
def test_a_question_that_does_no_harm(tmp_path: Path, probe: str, protocol: str, send: str) -> None:
    path = tmp_path / "bench.toml"
    path.write_text(CATERINA.format(probe=probe, protocol=protocol, send=send))
    assert load(path).entries["motor"].spec.version is not None
