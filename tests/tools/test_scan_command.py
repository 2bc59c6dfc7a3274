"""`scan`: what is there, what is not, what the file does not mention; and `plan`, which looks the same way."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
from proxyflash.emulators import application

from .conftest import MANIFEST, Desk

CAN_ONLY = """
[bus.powertrain]
kind = "can"
emulated = true
pace = 0.0

[[component]]
name = "front-radar"
bus = "powertrain"
protocol = "uds"
address = {request = 0x7E0, response = 0x7E8}
profile = {memory = [{start = 0x0001_0000, size = 0x7_0000}]}
emulated = {part = "acme-r77", firmware = "firmware/radar-1.4.2.bin"}
"""


def test_the_table_is_one_line_a_component_under_its_bus(desk: Desk) -> None:
    done = desk.run("scan")
    assert (done.status, done.err) == (0, "")
    assert [line.split() for line in done.out.splitlines()] == [
        ["powertrain", "(can,", "emulated)"],
        ["front-radar", "radars", "Acme", "R77", "1.4.2", "ok", "uds", "0x7E0/0x7E8", "serial", "RA-0019"],
        ["imu-uart", "(serial,", "emulated)"],
        ["imu", "imus", "Contoso", "IMU-6", "1.4.2", "ok", "stm32-uart"],
        ["usb", "(usb,", "emulated)"],
        ["camera", "cameras", "Fabrikam", "C-24", "1.4.2", "ok", "dfu", "0483:df11", "serial", "C24-7781"],
    ]
    rows = [line for line in done.out.splitlines() if line.startswith("  ")]
    assert len({row.index(" 1.4.2 ") for row in rows}) == 1


def test_the_document_has_the_component_records(desk: Desk) -> None:
    document = desk.run("scan", "--json").document
    radar = document["components"][0]
    assert {key: radar[key] for key in ("id", "name", "group", "manufacturer", "model", "version", "presence")} == {
        "id": "RA-0019",
        "name": "front-radar",
        "group": "radars",
        "manufacturer": "Acme",
        "model": "R77",
        "version": "1.4.2",
        "presence": "ok",
    }
    assert all(isinstance(value, str) for value in radar["properties"].values())
    assert (document["unlisted"], document["errors"]) == ([], [])


def test_what_the_file_lacks_is_printed_as_lines_that_hold(desk: Desk) -> None:
    # The file asks for a camera with another serial number than that which is there.
    desk.edit(("address = {vendor_id", 'address = {serial = "other", vendor_id'))
    found = desk.run("scan", "--json").document
    [item] = [item for item in found["unlisted"] if item["bus"] == "usb"]
    done = desk.run("scan")
    pasted = done.out.partition("to add, paste:\n")[2]
    assert item["lines"] in pasted
    desk.bench.write_text(desk.bench.read_text() + "\n" + item["lines"] + "\n")
    assert desk.run("bench", "check", "--json").document["components"][-1] == "usb-1209-0c24"


@pytest.mark.real_time("a step runs a script")
def test_a_bus_that_can_not_be_used_is_told_and_the_others_are_scanned(desk: Desk) -> None:
    head, rest = desk.bench.read_text().split("[bus.imu-uart]")
    _, rest = rest.split("[bus.usb]")
    rest = re.sub(r"^emulated = \{part = .stm32f405xg.*$", "", rest, flags=re.MULTILINE)
    desk.bench.write_text(f'{head}[bus.imu-uart]\nkind = "serial"\nurl = "/dev/none"\n\n[bus.usb]{rest}')
    done = desk.run("scan")
    assert done.status == 4
    assert "E-SERIAL-ABSENT" in done.err
    assert "1.4.2" in done.out
    quiet = desk.run("scan", "--quiet")
    assert "E-SERIAL-ABSENT" in quiet.err
    document = desk.run("scan", "--json").document
    assert [(item["bus"], item["code"]) for item in document["errors"]] == [("imu-uart", "E-SERIAL-ABSENT")]
    # An update that needs the bus ends with the bus's own error; an update that does not need it goes on.
    done = desk.run("plan", desk.manifest)
    assert (done.status, done.err.split()[:2]) == (4, ["E-SERIAL-ABSENT", "imu:"])
    manifest = json.loads(desk.manifest.read_text())
    manifest["instructions"]["steps"] = [
        step for step in manifest["instructions"]["steps"] if step.get("updateId", {}).get("name") != "Imu"
    ]
    desk.manifest.write_text(json.dumps(manifest))
    done = desk.run("apply", desk.manifest)
    assert (done.status, done.err.split()[0]) == (0, "E-SERIAL-ABSENT")
    assert "camera  OK" in done.out


@pytest.mark.parametrize("arguments", [["scan"], ["info", "front-radar"]])
def test_what_the_bench_does_not_need_is_not_imported(desk: Desk, arguments: list[str]) -> None:
    desk.bench.write_text(CAN_ONLY)
    code = (
        "import sys\n"
        "from proxyflash.tools import commands\n"
        "status = commands.run(sys.argv[1:])\n"
        "needless = {'usb', 'serial', 'rich', 'elftools', 'cryptography', 'bincopy'} & set(sys.modules)\n"
        "sys.exit(f'imported: {needless}' if needless else status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *desk.arguments(*arguments)], capture_output=True, text=True, timeout=600
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_plan_names_each_step_and_sends_nothing_that_writes(desk: Desk) -> None:
    seen, before = desk.seen(), desk.memory()
    done = desk.run("plan", desk.manifest)
    assert (done.status, done.err) == (0, "")
    lines = [line.split() for line in done.out.splitlines()]
    assert lines[0] == ["Example/Host", "1.5"]
    assert lines[2] == ["2.1", "front-radar", "proxyflash/flash:1", "radar-1.5.0.s19", "1.4.2", "->", "1.5.0"]
    assert [line[0] for line in lines[1:5]] == ["1", "2.1", "3.1", "4.1"]
    assert all(" ".join(line).startswith("can't be rolled back: ") for line in lines[5:])
    document = desk.run("plan", desk.manifest, "--json").document
    assert [task["component"] for task in document["tasks"]] == [None, "front-radar", "imu", "camera"]
    assert {task["status"] for task in document["tasks"]} == {"to do"}
    assert (desk.seen(), desk.memory()) == (seen, before)


@pytest.mark.real_time("a step runs a script")
def test_an_update_gives_each_component_its_verdict_and_the_next_one_finds_it_done(desk: Desk) -> None:
    done = desk.run("apply", desk.manifest)
    assert done.status == 0
    # Each verdict comes as soon as it is known.
    assert [line.split()[:2] for line in done.out.splitlines()[-7:]] == [
        ["host", "OK"],
        *([name, word] for name in ("front-radar", "imu", "camera") for word in ("plan", "OK")),
    ]
    assert set(desk.seen().values()) == {"1.5.0"}
    memory = desk.memory()
    again = desk.run("apply", desk.manifest)
    assert again.status == 0
    assert again.out.count("OK  installed already") == 3
    assert desk.memory() == memory
    plan = desk.run("plan", desk.manifest)
    assert plan.out.count("1.5.0  (installed already)") == 3


@pytest.mark.real_time("a step runs a script")
def test_an_update_that_fails_half_way_tells_of_each_and_goes_on(desk: Desk) -> None:
    # An IMU that says neither its version nor that it is there: only flashing it finds out that it is mute.
    desk.edit(('wiring = "dtr-reset', 'mute = true, wiring = "dtr-reset'))
    text = desk.bench.read_text()
    desk.bench.write_text(re.sub("^(version|probe) = .*$", "", text, flags=re.MULTILINE))
    done = desk.run("apply", desk.manifest)
    assert done.status == 10
    lines = done.out.splitlines()[-5:]
    assert [line.split()[:2] for line in lines] == [
        ["host", "OK"],
        ["front-radar", "plan"],
        ["front-radar", "OK"],
        ["imu", "stopped"],
        ["camera", "not"],
    ]
    assert lines[3].startswith("imu  stopped at step 3.1: no answer on imu-uart")
    assert done.err.splitlines()[-1].startswith("E-PART-MUTE imu: ")
    document = desk.run("apply", desk.manifest, "--json").document
    assert (document["ending"], document["error"]["code"]) == ("unfinished", "E-PART-MUTE")
    states = {item["component"]: item["status"] for item in document["report"]["componentResults"]}
    assert states == {"host": "done", "front-radar": "done", "imu": "stopped", "camera": "not run"}
    desk.bench.write_text(text.replace("mute = true, ", ""))
    done = desk.run("apply", desk.folder / MANIFEST)
    assert done.status == 0
    assert set(desk.seen().values()) == {"1.5.0"}


ASKED = {
    "can": ('kind = "can"', "nothing was asked: probe = true lets scan ask whoever is on this bus"),
    "serial": ('kind = "serial"', "nothing was asked: ask = [...] lists by which protocols scan may ask"),
    "probed serial": (
        'kind = "serial"\nprobe = true',
        "probe = true does nothing on a line without a component: ask = [...] lists by which protocols",
    ),
    "asked serial": (
        'kind = "serial"\nbaudrate = 57600\nask = [{protocol = "stm32-uart"}]',
        "asked by stm32-uart at 57,600 bit/s: no answer",
    ),
}


@pytest.mark.parametrize("case", ASKED)
def test_what_is_not_asked_is_said_with_the_key_that_lets_scan_ask(case: str, desk: Desk) -> None:
    keys, said = ASKED[case]
    desk.bench.write_text(f"[bus.b]\nemulated = true\npace = 0.0\n{keys}\n")
    done = desk.run("scan")
    assert (done.status, done.err) == (0, "")
    assert done.out.splitlines()[1].startswith(f"  {said}")


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("", "imu: nothing was asked: version = {send = ..., match = ...} lets scan ask its application, probe = true"),
        (
            'version = {send = "V", match = "FW ([0-9.]+)"}',
            "imu: its bootloader was not asked: probe = true lets scan ask it",
        ),
    ],
)
def test_of_a_part_that_is_not_seen_it_is_said_what_was_not_asked(version: str, said: str, desk: Desk) -> None:
    desk.bench.write_text(
        f'[bus.b]\nkind = "serial"\nemulated = true\npace = 0.0\n[[component]]\nname = "imu"\nbus = "b"\n'
        f'protocol = "stm32-uart"\n{version}\nemulated = {{part = "stm32f405xg"}}\n'
    )
    assert said in desk.run("scan").out
    assert said in json.loads(desk.run("scan", "--json").out)["unasked"][0]["text"]


def test_a_bootloader_that_no_scan_asks_is_not_said_to_be_asked(desk: Desk) -> None:
    """XCP's CONNECT restarts an application with OpenBLT."""
    desk.bench.write_text(
        '[bus.b]\nkind = "serial"\nemulated = true\npace = 0.0\nprobe = true\n[[component]]\nname = "pump"\nbus = "b"\n'
        'protocol = "xcp-uart"\nemulated = {part = "openblt-f103-uart"}\n'
    )
    out = desk.run("scan").out
    assert "pump: nothing was asked: version = {send = ..., match = ...} lets scan ask its application" in out
    assert "probe = true" not in out
    assert "asked by xcp-uart" not in out


def test_that_others_of_a_bus_were_not_asked_is_said_with_v(desk: Desk) -> None:
    said = "no other part was asked: probe = true lets scan ask whoever is on this bus"
    assert said not in desk.run("scan").out
    assert said in desk.run("scan", "-v").out


def test_info_of_an_ecu_without_a_memory_in_its_profile_says_who_it_is(desk: Desk) -> None:
    (desk.folder / "old.bin").write_bytes(application.make("1.4.2", "radar", "Acme", 1000, start=0x10000))
    desk.bench.write_text(
        '[bus.b]\nkind = "can"\nemulated = true\npace = 0.0\n[[component]]\nname = "radar"\nbus = "b"\nprotocol = "uds"\n'
        'address = {request = 0x7E0}\nemulated = {serial = "RA-1", firmware = "old.bin"}\n'
    )
    done = desk.run("info", "radar")
    assert (done.status, done.err) == (0, "")
    assert re.search(r"serial +RA-1\n", done.out)
    assert re.search(r"version +1\.4\.2\n", done.out)
    assert "not known: the profile names no memory. Add memory = [" in done.out
