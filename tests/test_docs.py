"""The documents hold: their links, command lines and examples work, and their tables are those of the code."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import can
import click
import pytest
from proxyflash.docs import errors_page, reference
from proxyflash.emulators.device import BadDevice, DeviceSpec
from proxyflash.emulators.faults import FaultPlan, Faults
from proxyflash.enumerators.bench import Bench
from proxyflash.enumerators.benchfile.schema import FaultSpec, load
from proxyflash.enumerators.target import Target
from proxyflash.flashers.avr.avr109 import Avr109Profile
from proxyflash.flashers.dfu.profile import DfuAddress
from proxyflash.flashers.settings import Settings
from proxyflash.flashers.stm32.parts import families
from proxyflash.flashers.stm32.profile import Stm32Profile
from proxyflash.flashers.uds.profile import Routines, UdsProfile
from proxyflash.tools.bench_schema import Schema, bench_schema, schema_of
from proxyflash.tools.commands import cli
from proxyflash.tools.commands.session import Session
from proxyflash.tools.output import Output
from proxyflash.transports import plugins
from proxyflash.transports.errors import ExitStatus, SerialSettings, UdpSettings
from proxyflash.transports.serial.port import SerialPort
from proxyflash.transports.udp import UdpSocket

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
BENCH_FILE = ROOT / "docs" / "bench-file.md"
INDEX = ROOT / "docs" / "index.md"
EMULATION = ROOT / "docs" / "emulation.md"
PLUGINS = ROOT / "docs" / "plugins.md"


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


# Links.

LINKING = sorted({*DOCUMENTS, *ROOT.glob("*.md"), *ROOT.glob("examples/*/*.md")})
"""The site leaves the words of a link that leads out of it: there a wrong link is not seen."""


def anchors(text: str) -> set[str]:
    """Those that GitHub makes of headings. What looks like a heading in a code block is a comment."""
    titles = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("document", LINKING, ids=name_of)
def test_every_relative_link_resolves(document: Path) -> None:
    text = re.sub(r"^```.*?^```|`[^`\n]*`", "", document.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.is_file(), link
        if anchor:
            assert anchor in anchors(target.read_text(encoding="utf-8")), link


def test_the_readme_or_the_index_links_every_document() -> None:
    readme, index = (path.read_text(encoding="utf-8") for path in (ROOT / "README.md", INDEX))
    for document in (ROOT / "docs").glob("*.md"):
        assert f"(docs/{document.name})" in readme or f"({document.name})" in index, document.name
    assert "(docs/index.md)" in readme


def test_each_target_of_the_first_page_holds() -> None:
    text = (ROOT / "docs" / "start-bench.md").read_text(encoding="utf-8")
    targets = re.findall(r"^\| .* \| `'?([a-z0-9-]+:[^'`]+)'?`", text, re.MULTILINE)
    assert {target.partition(":")[0] for target in targets} >= {
        "stm32-uart",
        "dfu",
        "stk500v1",
        "avr109",
        "smp",
        "uds",
        "xmodem",
    }
    for target in targets:
        [entry] = Target(target).file().entries.values()
        assert entry.flasher.protocol == target.partition(":")[0]


# Command lines.


def command_lines() -> Iterator[Any]:
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        quoted = re.findall(r"`(proxyflash [^`\n]*)`", text)
        shown = re.findall(r"^ {4}(?:\$ )?(proxyflash .*)$", text, re.MULTILINE)
        for line in dict.fromkeys(quoted + shown):
            yield pytest.param(line, id=f"{name_of(document)}: {line[:60]}")


def parse(arguments: list[str]) -> None:
    """As the command line does, without running the command."""
    group: click.Command = cli
    name: str | None = "proxyflash"
    context: click.Context | None = None
    while isinstance(group, click.Group):
        context = group.make_context(name, arguments, parent=context, obj=Session((), Output()))
        name, command, arguments = group.resolve_command(context, [*context._protected_args, *context.args])
        assert command is not None, name
        group = command
    group.make_context(name, arguments, parent=context)


@pytest.mark.parametrize("line", list(command_lines()))
def test_every_command_line_parses(line: str) -> None:
    words = shlex.split(line, comments=True)[1:]
    if ">" in words:
        words = words[: words.index(">")]
    if words[0] == "COMMAND":
        words[0] = "scan"
    with contextlib.suppress(click.exceptions.Exit):  # --help
        parse(words)


@pytest.mark.parametrize("line", ["scann", "scan --all", "bench chek", "flash imu", "--benches x scan"])
def test_a_command_line_that_does_not_parse_is_seen(line: str) -> None:
    with pytest.raises(click.UsageError):
        parse(line.split())


# Examples.


def fences(document: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", document.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


TOML = [
    pytest.param(text, id=f"{name_of(document)} {number}")
    for document in DOCUMENTS
    for number, text in enumerate(fences(document, "toml"), 1)
    # The bench of a package that is installed elsewhere: tests/test_add_a_protocol.py. Benches with firmware beside them:
    # tests/tools/test_ci_document.py.
    if document.name not in ("add-a-protocol.md", "ci.md")
]


@pytest.mark.parametrize("text", TOML)
def test_every_toml_example_is_a_bench_file(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bench.toml"
    path.write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    for module, function in re.findall(r'key = "([\w.]+):(\w+)"', text):
        # By a file for each: the names of packages are those of examples, and there are no such packages.
        (tmp_path / module.replace(".", "/")).parent.mkdir(exist_ok=True)
        (tmp_path / f"{module.replace('.', '/')}.py").write_text(f"def {function}(seed, secret, level): return seed")
    for name in re.findall(r'file = "([\w.]+\.bin)"', text):
        (tmp_path / name).write_bytes(b"driver")
    load(path)
    with Bench.open(path, state=tmp_path / "state") as bench:
        bench.check()


def test_there_are_examples_for_each_protocol_and_kind_of_bus() -> None:
    text = "".join(fences(BENCH_FILE, "toml"))
    for protocol in plugins.names(plugins.FLASHERS):
        assert f'protocol = "{protocol}"' in text
    for kind in plugins.names(plugins.TRANSPORTS):
        assert f'kind = "{kind}"' in text


@pytest.fixture
def bench_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The example's bench, taking no time, as the current folder."""
    folder = tmp_path / "bench"
    shutil.copytree(ROOT / "examples" / "three_sensors", folder)
    file = folder / "bench.toml"
    text = file.read_text(encoding="utf-8")
    file.write_text(re.sub(r"^(emulated = true)$", r"\1\npace = 0.0", text, flags=re.MULTILINE), encoding="utf-8")
    shutil.copy(folder / "update" / "imu-1.5.0.hex", folder)
    monkeypatch.chdir(folder)
    return folder


PRINTED = [
    (EMULATION, 0, "10 0a 62 f1 8c 52 41 2d"),  # First frame of 10 bytes: 62 F1 8C "RA-0019".
    (EMULATION, 1, r"b'FW 1.4.2\r\n'"),
    (EMULATION, 2, "C24-7781"),
    (EMULATION, 3, "1.4.2"),
    (ROOT / "README.md", 0, "1.5.0 read back"),
    (ROOT / "docs" / "targets.md", 0, "dfu-0483-df11 bootloader"),
    (ROOT / "docs" / "recordings.md", 1, "0462f18601cccccc C24-7781"),  # ReadDataByIdentifier of the default session.
]
RUN_ELSEWHERE = [
    # The files of a package: tests/test_add_a_protocol.py.
    *((ROOT / "docs" / "add-a-protocol.md", number) for number in range(5)),
    # Tests for pytest: tests/tools/test_ci_document.py.
    (ROOT / "docs" / "ci.md", 0),
    # Such classes are in tests/flashers/test_contract.py.
    (ROOT / "docs" / "contract-tests.md", 0),
    # Tests for pytest: tests/hil_tests/test_bench_tests_document.py.
    *((ROOT / "docs" / "bench-tests.md", number) for number in range(10)),
    (ROOT / "docs" / "start-tests.md", 0),
    # Pieces of tests/plugin_package, which tests/test_plugin_package.py installs and runs; held to it below.
    *((ROOT / "docs" / "plugins.md", number) for number in range(14)),
    # A test for pytest: tests/tools/test_recordings_command.py.
    (ROOT / "docs" / "recordings.md", 0),
]


@pytest.mark.parametrize(("document", "number", "printed"), PRINTED)
def test_a_python_example_runs(
    document: Path, number: int, printed: str, bench_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exec(compile(fences(document, "python")[number], str(document), "exec"), {"__name__": "example"})
    assert printed in capsys.readouterr().out.splitlines()[-1]


def test_all_python_examples_are_run() -> None:
    there = [(document, number) for document in DOCUMENTS for number in range(len(fences(document, "python")))]
    assert there == sorted([(document, number) for document, number, _ in PRINTED] + RUN_ELSEWHERE)


def test_the_examples_of_plugins_are_pieces_of_the_package() -> None:
    package = ROOT / "tests" / "plugin_package"
    pieces = [path.read_text(encoding="utf-8") for path in (package / "proxyflash_loop").glob("*.py")]
    for example in fences(PLUGINS, "python"):
        assert any(example.rstrip() in piece for piece in pieces), example
    [entries] = fences(PLUGINS, "ini")
    assert entries.rstrip() in (package / "setup.cfg").read_text(encoding="utf-8")


def test_the_plugins_and_their_groups_are_those_that_there_are() -> None:
    text = PLUGINS.read_text(encoding="utf-8")
    groups, _, known = text.partition("## Known plugins")
    assert re.findall(r"^\| `(proxyflash\.\w+)` \|", groups, re.MULTILINE) == list(plugins.GROUPS)
    own = {
        group: sorted(entry.name for entry in distribution("proxyflash").entry_points if entry.group == group)
        for group in plugins.GROUPS
    }
    rows = re.findall(r"^\| `(proxyflash\.\w+)` \| (.*) \|", known, re.MULTILINE)
    assert {group: re.findall(r"`([^`]+)`", names) for group, names in rows} == own
    for name in re.findall(r"`(proxyflash(?:\.\w+)+\.[A-Z]\w+)`", groups):
        module, _, attribute = name.rpartition(".")
        assert isinstance(getattr(import_module(module), attribute), type)


def test_emulate_serves_as_the_document_says(bench_folder: Path) -> None:
    command = [sys.executable, "-m", "proxyflash.tools", "--json", "--state", "s", "emulate"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            said = ""
            for line in process.stdout:
                said += line
                if line == "}\n":
                    break
            served = json.loads(said)["served"]
            assert Path(served["imu-uart"]["path"]).is_char_device()
            with can.Bus(interface="proxyflash", channel=f"unix:{served['powertrain']['path']}") as bus:
                request = [3, 0x22, 0xF1, 0x8C, 0, 0, 0, 0]
                bus.send(can.Message(arbitration_id=0x7E0, is_extended_id=False, data=request))
                answer = bus.recv(timeout=30)
            assert answer is not None
            assert bytes(answer.data)[:8] == b"\x10\x0a\x62\xf1\x8cRA-"
        finally:
            process.send_signal(signal.SIGINT)
    assert process.returncode == 0


# The bench file's keys.


def undescribed(schema: Schema, where: str = "") -> Iterator[str]:
    """The keys of a JSON Schema without a description."""
    for key, value in schema.get("properties", {}).items():
        if not value.get("description"):
            yield f"{where}.{key}"
        yield from undescribed(value, f"{where}.{key}")
    inner = [*schema.get("anyOf", ()), *schema.get("patternProperties", {}).values(), *schema.get("$defs", {}).values()]
    for value in [*inner, *filter(None, [schema.get("items")])]:
        yield from undescribed(value, where)


def test_every_key_has_a_description() -> None:
    schema = bench_schema()
    assert list(undescribed(schema)) == []
    del schema["$defs"]["uds.profile"]["properties"]["iso_tp"]["properties"]["st_min"]["description"]
    assert ".iso_tp.st_min" in list(undescribed(schema))


def test_the_page_of_all_keys_is_what_the_schema_says() -> None:
    assert reference.PAGE.read_text(encoding="utf-8") == reference.page(), "run: python -m proxyflash.docs.reference"

    assert set(reference.ORDER) <= set(plugins.names(plugins.FLASHERS))
    for protocol in plugins.names(plugins.FLASHERS):
        assert f"## Protocol `{protocol}`" in reference.page()


def test_the_page_of_errors_is_what_the_classes_say() -> None:
    assert errors_page.PAGE.read_text(encoding="utf-8") == errors_page.page(), (
        "run: python -m proxyflash.docs.reference"
    )
    assert errors_page.NOTES.keys() <= errors_page.classes().keys()
    text = "Is it the part? Run: proxyflash scan --json. Or proxyflash help targets"
    assert errors_page.marked(text) == "Is it the part? Run: `proxyflash scan --json`. Or [targets.md](targets.md)"


@pytest.mark.parametrize(("model", "key", "row"), [
    (UdsProfile, "read_block", "| `read_block` | integer, from 1 to 4094 | `256` | Bytes that one Read"),
    (Routines, "erase", '| `erase` | integer, from 0 to 0xFFFF or "none" | `0xFF00` | Identifier of the erase routine. |'),
    (Stm32Profile, "answer", "| `answer` | number, above 0, up to 60 | `1.0` |"),
    (DfuAddress, "vendor_id", "| `vendor_id` | integer, from 0 to 0xFFFF | `0x0483` |"),
    (Avr109Profile, "entry", "| `entry` | table | `{}` |"),
])  # fmt: skip
def test_a_row_of_the_page_has_the_values_and_the_default(model: type[Settings], key: str, row: str) -> None:
    rows = dict(zip(model.keys_declared, reference.rows(schema_of(model)), strict=True))
    assert rows[key].startswith(row)


def keys_in(error: Exception) -> set[str]:
    """Those that a message lists: "...; there are: a, b, c"."""
    return set(str(error).partition("there are: ")[2].rstrip(".").split(". ")[0].split(", "))


def test_the_serial_bus_s_keys() -> None:
    with pytest.raises(SerialSettings) as caught:
        SerialPort.open("line", {"url": "loop://", "nonsense": 1})
    assert set(SerialPort.settings_schema) == keys_in(caught.value.__class__(caught.value.cause, remedy=""))


def test_the_udp_bus_s_keys() -> None:
    with pytest.raises(UdpSettings) as caught:
        UdpSocket.open("lan", {"host": "::1", "nonsense": 1})
    assert set(UdpSocket.settings_schema) == keys_in(caught.value.__class__(caught.value.cause, remedy=""))


def test_the_faults_are_those_of_the_wires() -> None:
    assert list(FaultSpec.keys_declared) == FaultPlan.names()
    assert FaultSpec().model_dump() == {name: getattr(FaultPlan(), name) for name in FaultPlan.names()}


# The emulated parts' tables.


@pytest.mark.parametrize("protocol", plugins.names(plugins.EMULATORS))
def test_the_keys_and_parts_of_an_emulated_part(protocol: str) -> None:
    """The keys that the class declares are those that it takes; the page on emulated benches names its parts."""
    device = plugins.load(plugins.EMULATORS, protocol)
    wire = plugins.load(plugins.WIRES, device.bus_kind).make(uuid.uuid4().hex, {}, Faults(FaultPlan()), 0.0)
    schema, names = bench_schema()["$defs"][f"{protocol}.emulated"], list(device.part_names())
    assert schema["properties"]["part"]["enum"] == names
    assert schema["properties"]["powered"]["default"] is True

    def refused(**settings: Any) -> BadDevice:
        address = {"request": 0x7E0, "response": 0x7E8}
        with pytest.raises(BadDevice) as caught:
            device.attach(DeviceSpec("part", address=address, settings=settings), wire)
        return caught.value

    try:
        assert refused(part=names[0], nonsense=1).key == "nonsense"
        assert keys_in(refused(part=names[0], nonsense=1)) | {"powered"} == set(schema["properties"])
        assert refused(part="nonsense").reason == f"'nonsense' is none of {', '.join(names)}"
        for key in schema["properties"].keys() - {"powered"}:
            assert refused(**{"part": names[0], key: object()}).key == key
    finally:
        wire.close()

    section = re.split(r"^### ", EMULATION.read_text(encoding="utf-8"), flags=re.MULTILINE)
    text = next(item for item in section if item.startswith(f"`emulated` of `{protocol}`"))
    assert f"[Keys](bench-keys.md#{protocol}-emulated)" in text
    assert [name for name in re.findall(r'`"([^"]+)"`', text) if name in names] == names


def test_each_key_of_an_emulated_part_is_used() -> None:
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "emulators").rglob("*.py")]
    for protocol in plugins.names(plugins.EMULATORS):
        for key in plugins.load(plugins.EMULATORS, protocol).keys.names() - {"part", "firmware"}:
            assert any(re.search(rf"\.{key}\b|strap: ClassVar\[str\] = \"{key}\"", text) for text in texts), (
                f"{protocol}: {key}"
            )


# The other tables.


def test_each_protocol_has_a_row_and_a_section() -> None:
    text = (ROOT / "docs" / "protocols.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z0-9-]+)` \|", text.partition("\n## ")[0], re.MULTILINE)
    assert re.findall(r"^## `(.+)`$", text, re.MULTILINE) == rows
    assert sorted(re.findall(r"^## `(.+)`$", text, re.MULTILINE)) == plugins.names(plugins.FLASHERS)
    for path in re.findall(r"`((?:flashers|emulators)/[\w./]+)`", text):
        assert (ROOT / path).is_file(), path


def test_the_stm32_families_are_those_of_the_data() -> None:
    text = (ROOT / "docs" / "protocols.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ((?:0x[0-9A-F]{3} ?)+) \| (.+) \|$", text, re.MULTILINE)
    listed = {
        int(number, 16): name
        for numbers, names in rows
        for number, name in zip(numbers.split(), names.split(", "), strict=True)
    }
    assert listed == {number: family.name for number, family in families().items()}


def test_the_exit_statuses_are_those_of_the_code() -> None:
    text = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    listed = [int(number) for number in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)]
    assert listed == [int(status) for status in ExitStatus]
