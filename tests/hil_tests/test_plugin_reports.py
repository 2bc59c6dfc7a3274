"""What a run of bench tests reports: JUnit XML, recordings, measurements; the same over the workers of pytest-xdist."""

from __future__ import annotations

import hashlib
import json
import math
import re
import unicodedata
from pathlib import Path
from xml.etree import ElementTree

import pytest
from proxyflash.hil_tests.measurements import Measurements

from .conftest import Outside, Suite

pytestmark = pytest.mark.real_time("a pytest of its own")

MEASURED = """
@pytest.mark.destructive
@pytest.mark.needs(name="front")
def test_flash(component, firmware, measurements):
    assert component.look().version == "1.4.2"
    component.flash(firmware.new.image)
    measurements.add("boot", 0.25, "s", high=2)
    measurements.add("supply", 4.9, "V", 4.75, 5.25)

@pytest.mark.needs(name="front")
def test_slow(measurements, component):
    measurements.add("start", 3.5, "s", low=0.5, high=3)

@pytest.mark.needs(group="radars")
def test_all(bench):
    pass
"""


class Junit:
    """The JUnit file: the properties of the whole run, and of each test."""

    def __init__(self, path: Path) -> None:
        root = ElementTree.parse(path).getroot()
        [suite] = root.iter("testsuite")
        self.suite = self._properties(suite)
        self.tests = {str(case.get("name")): self._properties(case) for case in suite.iter("testcase")}

    @staticmethod
    def _properties(element: ElementTree.Element) -> dict[str, str]:
        found = element.find("properties")
        return {} if found is None else {str(item.get("name")): str(item.get("value")) for item in found}


@pytest.mark.parametrize("workers", [0, 2])
def test_junit_tells_what_was_tested_with_what_and_what_was_measured(
    suite: Suite, hardware: Outside, workers: int
) -> None:
    spread = ["-n", str(workers)] if workers else []
    done = suite.run(MEASURED, "--allow-flash", "--junitxml=junit.xml", *spread)
    done.assert_outcomes(passed=2, failed=1)
    junit = Junit(suite.folder / "junit.xml")
    if not workers:  # There is no place where a worker could tell them.
        assert junit.suite["bench"] == str(suite.bench)
        assert junit.suite["proxyflash"]
    [flashed] = [told for name, told in junit.tests.items() if name.startswith("test_flash")]
    digest = hashlib.sha256((suite.folder / "radar-1.5.0.bin").read_bytes()).hexdigest()
    assert flashed == {
        "bench": str(suite.bench),
        "component": "front",
        "protocol": "uds",
        "serial": "RA-0019",
        "manufacturer": "Acme",
        "model": "R77",
        "version": "1.4.2",
        "state": "ok",
        "firmware.radar-1.5.0.bin.sha256": digest,
        "firmware.radar-1.5.0.bin.version": "1.5.0",
        "measurement.boot": "0.25",
        "measurement.boot.unit": "s",
        "measurement.boot.high": "2",
        "measurement.supply": "4.9",
        "measurement.supply.unit": "V",
        "measurement.supply.low": "4.75",
        "measurement.supply.high": "5.25",
    }
    [slow] = [told for name, told in junit.tests.items() if name.startswith("test_slow")]
    assert slow["version"] == "1.5.0"
    assert slow["measurement.start"] == "3.5"
    assert Path(slow["recording"]).is_dir()
    [both] = [told for name, told in junit.tests.items() if name.startswith("test_all")]
    assert both["front.version"] == "1.5.0"
    assert both["rear.serial"] == "RA-0020"
    done.stdout.fnmatch_lines(["E *Failed: start is 3.5 s, above its limit of 3 s"])


@pytest.mark.parametrize(
    ("value", "low", "high", "fault"),
    [
        (1.0, 1.0, 1.0, ""),
        (1.0, None, None, ""),
        (-3, None, -2.5, ""),
        (0.99, 1.0, None, "x is 0.99 V, below its limit of 1 V"),
        (1.01, None, 1.0, "x is 1.01 V, above its limit of 1 V"),
        (math.nan, 0.0, None, "x is nan V, below its limit of 0 V"),
        (math.nan, None, 0.0, "x is nan V, above its limit of 0 V"),
    ],
)
def test_limits_may_be_reached_and_not_passed(value: float, low: float | None, high: float | None, fault: str) -> None:
    told: list[tuple[str, object]] = []
    measurements = Measurements(told)
    if fault:
        with pytest.raises(pytest.fail.Exception) as caught:
            measurements.add("x", value, "V", low, high)
        assert str(caught.value) == fault
    else:
        measurements.add("x", value, "V", low, high)
    assert [item.name for item in measurements.taken] == ["x"]
    assert ("measurement.x.unit", "V") in told


def test_junit_and_the_summary_show_what_a_part_says_and_obey_nothing(
    suite: Suite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A serial number with an escape sequence, a bidirectional mark and a new line; a test that fails for its part."""
    monkeypatch.setenv("PROXYFLASH_ARTEFACTS", str(suite.folder / "kept"))
    hostile = "C24\x1b[2J\x07\u202eabc\nE-FAKE all is well"
    shown = r"C24\x1b[2J\x07\u202eabc\nE-FAKE all is well"
    text = suite.bench.read_text()
    camera = 'emulated = {part = "stm32f405-dfu", '
    assert text.count(camera) == 1
    suite.bench.write_text(text.replace(camera, f"{camera}serial = {json.dumps(hostile)}, "))
    junit = suite.folder / "junit.xml"
    done = suite.run(
        """
from proxyflash.transports.errors import ProxyflashError

@pytest.mark.needs(name="camera")
def test_it(component, measurements):
    found = component.look()
    measurements.add(found.properties["serial"], 1.0, found.properties["serial"])
    raise ProxyflashError(f"it calls itself {found.properties['serial']}")
""",
        f"--junitxml={junit}",
    )
    assert done.ret == 1
    said = "\n".join(done.outlines + done.errlines) + junit.read_text(encoding="utf-8")
    assert not {character for character in said if unicodedata.category(character) in ("Cc", "Cf")} - {"\n"}
    assert not [line for line in said.splitlines() if line.lstrip("E ").startswith("-FAKE")]
    properties = {item.get("name"): item.get("value") for item in ElementTree.parse(junit).iter("property")}
    assert properties["serial"] == shown
    assert properties[f"measurement.{shown}"] == "1.0"
    assert properties[f"measurement.{shown}.unit"] == shown
    assert f"it calls itself {shown}" in said


FAILING = """
@pytest.mark.needs(name="front")
def test_bad(component):
    component.look()
    assert False

@pytest.mark.needs(name="imu")
def test_good(component):
    component.look()
"""


def test_a_failure_names_what_was_recorded(suite: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROXYFLASH_ARTEFACTS", str(suite.folder / "kept"))
    done = suite.run(FAILING)
    done.assert_outcomes(passed=1, failed=1)
    folder = suite.folder / "kept" / "test_it.py-test_bad-front" / "recording"
    assert list((suite.folder / "kept").iterdir()) == [folder.parent]
    done.stdout.fnmatch_lines([
        "*- what passed on the buses -*", f"{folder}: recording.jsonl, can.log, recording.pcapng",
        "*- the last messages on the buses -*", "*:*:* * front -> ReadDataByIdentifier 0xF1*",
    ])  # fmt: skip
    log = (folder / "can.log").read_text()
    assert "7E0#0322F1" in log  # A single frame of 3 bytes: ReadDataByIdentifier.
    assert "7E8#" in log


def test_bench_report_makes_a_page_of_each_test_and_one_of_all(suite: Suite) -> None:
    """The workers of pytest-xdist write the pages, and the process that has started them writes the index."""
    done = suite.run(FAILING, "--bench-report", "pages", "-n", "2")
    done.assert_outcomes(passed=1, failed=1)
    done.stdout.fnmatch_lines(["report: pages/index.html"])
    folder = suite.folder / "pages"
    index = (folder / "index.html").read_text()
    assert "1 of 2 tests failed" in index
    linked = re.findall(r'<a href="\./([^"]*)">([^<]*)</a>', index)
    assert {name for name, _ in linked} == {path.name for path in folder.iterdir()} - {"index.html"}
    [(failed, name)] = [(page, name) for page, name in linked if "test_bad" in name]
    page = (folder / failed).read_text()
    assert name in page
    assert "What passed around each failure" in page
    assert "ReadDataByIdentifier" in page
    assert folder.stat().st_mode & 0o777 == 0o700


def test_the_page_of_all_tests_has_a_test_whose_worker_is_gone(suite: Suite) -> None:
    """Without its line the page would say that all is well."""
    gone = "import os\n\ndef test_good(component): pass\n\ndef test_gone(component): os._exit(3)\n"
    suite.run(gone, "--bench-report", "pages", "-n", "1", "--max-worker-restart", "0", "-k", "front")
    index = (suite.folder / "pages" / "index.html").read_text()
    assert "test_gone[front]" in index
    assert "1 of 2 tests failed" in index


def test_the_page_of_all_tests_has_what_is_wrong_beside_them(suite: Suite) -> None:
    (suite.folder / "test_broken.py").write_text("import there_is_no_such_module\n")
    suite.run(
        "def test_good(component): pass",
        "--bench-report",
        "pages",
        "--continue-on-collection-errors",
        "test_it.py",
        "test_broken.py",
    )
    index = (suite.folder / "pages" / "index.html").read_text()
    assert "test_broken.py can&#39;t be collected" in index
    assert "1 of 4 tests failed" in index


def test_the_page_of_a_test_on_simulated_time_says_so(suite: Suite) -> None:
    """The name of a test has the width of the page: it is too long for the column of a component."""
    suite.run("def test_good(component): pass", "--bench-report", "pages", "--simulated-time", "-k", "front")
    [page] = [path for path in (suite.folder / "pages").iterdir() if path.name != "index.html"]
    text = page.read_text()
    assert "All times on this page are simulated." in text
    assert '<li class="card wide">' in text


def test_bench_report_without_a_bench_test_says_so(suite: Suite) -> None:
    """Nothing that makes a bench was collected."""
    (suite.folder / "test_broken.py").write_text("import there_is_no_such_module\n")
    done = suite.run("def test_other(): pass", "--bench-report", "pages", "test_broken.py")
    assert done.ret == pytest.ExitCode.INTERRUPTED
    done.stdout.fnmatch_lines(["report: pages/index.html: no bench test was run"])
    index = (suite.folder / "pages" / "index.html").read_text()
    assert "test_broken.py can&#39;t be collected: ModuleNotFoundError: No module named" in index


def test_bench_report_is_refused_at_the_start_where_it_can_not_be_written(suite: Suite) -> None:
    (suite.folder / "file").touch()
    done = suite.run("def test_good(component): pass", "--bench-report", "file/pages")
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines([f"ERROR: --bench-report: can't write to the folder {suite.folder}/file/pages: *"])


def test_bench_report_replaces_no_index_of_others(suite: Suite) -> None:
    (suite.folder / "pages").mkdir()
    (suite.folder / "pages" / "index.html").write_text("<h1>The site</h1>")
    done = suite.run("def test_good(component): pass", "--bench-report", "pages")
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    assert (suite.folder / "pages" / "index.html").read_text() == "<h1>The site</h1>"


def test_with_record_every_test_keeps_its_recording(suite: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROXYFLASH_ARTEFACTS", str(suite.folder / "kept"))
    done = suite.run(FAILING, "--record", "--junitxml=junit.xml")
    done.assert_outcomes(passed=1, failed=1)
    folder = suite.folder / "kept" / "test_it.py-test_good-imu" / "recording"
    assert "VER?" in (folder / "serial.txt").read_text()
    [good] = [told for name, told in Junit(suite.folder / "junit.xml").tests.items() if name.startswith("test_good")]
    assert good["recording"] == str(folder)
    done.stdout.fnmatch_lines([f"2 recordings below {suite.folder / 'kept'}"])
    assert not (folder / "can.log").exists(), "what passed before the test"


@pytest.mark.parametrize("workers", [(), ("-n", "1")])
def test_with_record_a_recording_that_can_not_be_kept_is_told_at_the_end(
    suite: Suite, monkeypatch: pytest.MonkeyPatch, workers: tuple[str, ...]
) -> None:
    (suite.folder / "kept").write_text("a file, where the folder should be")
    monkeypatch.setenv("PROXYFLASH_ARTEFACTS", str(suite.folder / "kept"))
    done = suite.run("def test_it(component): pass", "--record", *workers)
    done.assert_outcomes(passed=3)
    done.stdout.fnmatch_lines([f"3 recordings not kept: *Not a directory: '{suite.folder}/kept/*'"])


def test_a_failure_shows_what_the_test_before_did_too(suite: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    """And no more: a long run writes no more for its last failure than for its first."""
    monkeypatch.setenv("PROXYFLASH_ARTEFACTS", str(suite.folder / "kept"))
    suite.run("""
@pytest.mark.needs(name=["imu", "front", "camera"])
def test_it(component):
    component.look()
    assert component.name != "camera"

def test_last(component):
    assert component.name != "front"
""").assert_outcomes(passed=4, failed=2)
    kept = suite.folder / "kept"
    assert {path.name for path in (kept / "test_it.py-test_it-camera" / "recording").iterdir()} == {
        "recording.jsonl", "serial.txt", "usb.txt", "recording.pcapng"
    }  # fmt: skip
    assert {path.name for path in (kept / "test_it.py-test_last-front" / "recording").iterdir()} == {
        "recording.jsonl", "can.log", "usb.txt", "recording.pcapng"
    }  # fmt: skip


def test_a_part_that_is_missed_at_the_first_look_is_recorded_too(suite: Suite, hardware: Outside) -> None:
    hardware.part("rear").supply.off()
    done = suite.run("@pytest.mark.needs(name='rear')\ndef test_it(component): pass", "--require=can")
    done.assert_outcomes(errors=1)
    [said] = [line for line in done.outlines if line.endswith("recording: recording.jsonl, can.log, recording.pcapng")]
    assert "7E1#" in (Path(said.partition(": ")[0]) / "can.log").read_text()


# Over several workers.


def test_each_worker_has_an_emulated_bench_of_its_own(suite: Suite) -> None:
    done = suite.run("""
@pytest.mark.needs("can")
@pytest.mark.parametrize("number", range(4))
def test_it(component, firmware, number, worker_id):
    with open("workers", "a") as file:
        print(worker_id, component.bench.folder, file=file)
    component.flash(firmware.made(version=f"2.0.{number}").image, expect_version=f"2.0.{number}")
""", "-n", "2", "--dist", "each")  # fmt: skip
    done.assert_outcomes(passed=8)
    used = dict(line.split() for line in (suite.folder / "workers").read_text().splitlines())
    assert sorted(used) == ["gw0", "gw1"]
    assert used["gw0"] != used["gw1"]


SPREAD = """
@pytest.mark.parametrize("number", range(5))
def test_it(component, number, worker_id):
    with open("workers", "a") as file:
        print(worker_id, file=file)

@pytest.mark.parametrize("number", range(5))
def test_other(number):
    pass

def test_bench(bench):
    pass

@pytest.mark.needs(group="lidars")
def test_lidar(component):
    pass
"""


@pytest.mark.parametrize("way", ["load", "worksteal"])
def test_the_tests_of_hardware_stay_on_one_worker(suite: Suite, hardware: Outside, way: str) -> None:
    done = suite.run(SPREAD, "-n", "2", "--dist", way)
    done.assert_outcomes(passed=16, skipped=1)
    done.stdout.fnmatch_lines(["1 skipped without their hardware: components 1"])
    assert len(set((suite.folder / "workers").read_text().split())) == 1


def test_hardware_can_not_be_tested_by_each_worker(suite: Suite, hardware: Outside) -> None:
    done = suite.run(SPREAD, "-n", "2", "--dist", "each")
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines([
        "ERROR: bench 'desk' has hardware, which one worker at a time can use: not --dist each"
    ])  # fmt: skip


def test_what_a_worker_can_not_make_safe_is_told(suite: Suite, hardware: Outside) -> None:
    suite.bench.write_text(suite.bench.read_text().replace("echo on front >control; read done <done", "exit 9"))
    done = suite.run("""
@pytest.mark.needs(name="front")
def test_off(power):
    power.off()
""", "-n", "2")  # fmt: skip
    assert done.ret == pytest.ExitCode.TESTS_FAILED
    done.stdout.fnmatch_lines(["bench 'desk': 'front' is left as it is: E-POWER front: 'exit 9' ended with 9.*"])
