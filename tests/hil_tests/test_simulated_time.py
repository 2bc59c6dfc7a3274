"""`pytest --simulated-time`: what it does to bench tests, what it leaves alone, and what it refuses by name."""

from __future__ import annotations

import signal
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from .conftest import Outside, Suite
from .test_plugin_interrupts import start, wait_for

IMPORTS = """
import time
from proxyflash.hil_tests.boot_session import running
from proxyflash.transports import clock
"""
TIMES = f"""{IMPORTS}
@pytest.mark.needs(name="front")
"""
LONG = f"""{TIMES}
def test_it(component):
    clock.sleep(3600)
    assert running(component).version == "1.4.2"
"""
AN_HOUR = 3600


def properties(file: Path) -> list[dict[str, str]]:
    """Of each test, what the JUnit file says of it."""
    tests = ElementTree.parse(file).iter("testcase")
    return [{item.get("name", ""): item.get("value", "") for item in test.iter("property")} for test in tests]


def test_an_hour_of_the_bench_is_no_hour(suite: Suite) -> None:
    done = suite.run(LONG, "--simulated-time", f"--junitxml={suite.folder / 'junit.xml'}")
    done.assert_outcomes(passed=1)
    (told,) = properties(suite.folder / "junit.xml")
    assert AN_HOUR <= float(told["simulated_seconds"]) < AN_HOUR + 10
    done.stdout.re_match_lines([r"3,60\d\.\d simulated seconds in [0-9.]+ real seconds"])


def test_the_ini_option_is_the_default(suite: Suite) -> None:
    (suite.folder / "pytest.ini").write_text("[pytest]\nproxyflash_simulated_time = true\n")
    test = TIMES + "def test_it(component): assert clock.current().is_simulated is SIMULATED\n"
    suite.run(test.replace("SIMULATED", "True")).assert_outcomes(passed=1)
    suite.run(test.replace("SIMULATED", "False"), "--no-simulated-time").assert_outcomes(passed=1)


def test_an_ini_option_that_is_neither_true_nor_false_is_a_usage_error(suite: Suite) -> None:
    (suite.folder / "pytest.ini").write_text("[pytest]\nproxyflash_simulated_time = maybe\n")
    for bench in (True, False):
        done = suite.run("def test_it(): pass", bench=bench)
        assert done.ret == pytest.ExitCode.USAGE_ERROR
        done.stderr.fnmatch_lines(["ERROR: ini option proxyflash_simulated_time: write true or false"])


def test_other_tests_and_their_fixtures_have_real_time(suite: Suite) -> None:
    """In between, before and after; a fixture of the bench ends under the clock that it began under."""
    tests = """
import threading, time
from proxyflash.transports import clock

def is_simulated():
    return clock.current().is_simulated

@pytest.fixture(scope="module")
def radar(bench):
    assert is_simulated()
    yield bench.component("front")
    assert is_simulated()
    bench.component("front").look()

@pytest.fixture(scope="module")
def server():
    assert not is_simulated()
    yield
    assert not is_simulated()

@pytest.fixture
def own(request):
    before = is_simulated()
    yield before
    assert is_simulated() is before

def test_before(server, own):
    assert not is_simulated() and not own
    time.sleep(0.001)

def test_bench(radar, server, own):
    assert is_simulated() and own
    clock.sleep(100)

def test_between(own):
    assert not is_simulated() and not own
    threading.Event().wait(0.001)
    assert clock.monotonic() <= time.monotonic()

def test_bench_again(radar):
    assert radar.look().version == "1.4.2"

def test_after(server):
    assert not is_simulated()
"""
    done = suite.run(tests, "--simulated-time", "-W", "error")
    done.assert_outcomes(passed=5)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ("emulatd = true", "E-BENCH-KEY *unknown key 'emulatd' (did you mean 'emulated'?)*"),
        ('interface = "slcan"\nchannel = "/dev/ttyACM0"\nbitrat = 1', "E-CAN-SETTINGS *no key 'bitrat'*"),
    ],
)
def test_a_bench_that_bench_check_refuses_is_refused_at_the_start(suite: Suite, keys: str, said: str) -> None:
    suite.bench.write_text(f'[bus.x]\nkind = "can"\n{keys}\n')
    done = suite.run("def test_it(component): pass", "--simulated-time")
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines([f"ERROR: {said}"])


def test_a_bus_that_is_not_emulated_is_refused_by_name(suite: Suite, hardware: Outside) -> None:
    done = suite.run(LONG, "--simulated-time")
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines(
        ["*E-CLOCK-MIXED bench 'desk' has buses that are not emulated: 'powertrain'. *--no-simulated-time*"]
    )


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("time.sleep(1)", "waits in real time by time.sleep"),
        ("from time import sleep; sleep(1)", "waits in real time by time.sleep"),
        ("threading.Event().wait(1)", "waits in real time by threads of Python's own"),
        ("threading.Semaphore(0).acquire(timeout=1)", "waits in real time by threads of Python's own"),
        ("queue.Queue().get(timeout=1)", "waits in real time by threads of Python's own"),
        ("ThreadPoolExecutor().submit(component.look).result()", "waits in real time by threads of Python's own"),
    ],
)
def test_a_wait_in_real_time_fails_the_test_by_name(suite: Suite, line: str, said: str) -> None:
    head = "import queue, threading\nfrom concurrent.futures import ThreadPoolExecutor\n"
    done = suite.run(f"{head}{TIMES}def test_it(component):\n    {line}\n", "--simulated-time")
    done.assert_outcomes(failed=1)
    text = done.stdout.str()
    assert f"test_it.py::test_it[front] runs on simulated time, and {said}" in text
    assert "or run without --simulated-time" in text
    place = next(
        number for number, text in enumerate((suite.folder / "test_it.py").read_text().splitlines(), 1) if line in text
    )
    assert f"test_it.py:{place})" in text


@pytest.mark.parametrize(
    "line",
    [
        "lock = threading.Lock(); lock.acquire(); lock.acquire(timeout=0.01)",
        "assert pytest.raises(queue.Empty, queue.SimpleQueue().get, timeout=0.01)",
        "thread = threading.Thread(target=print); thread.start(); thread.join()",
    ],
)
def test_waits_that_the_document_says_nobody_notices(suite: Suite, line: str) -> None:
    done = suite.run(
        f"import queue, threading\n{TIMES}def test_it(component):\n    {line}\n", "--simulated-time", "-W", "error"
    )
    done.assert_outcomes(passed=1)


@pytest.mark.parametrize("read", ["time.monotonic()", "time.perf_counter()", "time.time_ns()", "now()"])
def test_a_look_at_a_real_clock_is_a_warning_by_name(suite: Suite, read: str) -> None:
    tests = f"from time import monotonic as now\n{TIMES}def test_it(component):\n    for _ in range(3): {read}\n"
    done = suite.run(tests, "--simulated-time")
    done.assert_outcomes(passed=1, warnings=1)
    name = "monotonic" if read == "now()" else read.partition(".")[2].rstrip("()")
    assert f"test_it.py::test_it[front] reads time.{name}, but runs on simulated time" in done.stdout.str()
    suite.run(tests).assert_outcomes(passed=1, warnings=0)


@pytest.mark.parametrize("caught", [False, True])
def test_a_thread_that_the_clock_does_not_run_fails_the_test_by_name(suite: Suite, caught: bool) -> None:
    tests = f"""
import threading
{TIMES}
def test_it(component):
    def look():
        try:
            component.look()
        except Exception:
            if not {caught}:
                raise
    thread = threading.Thread(target=look, name="the user's")
    thread.start()
    thread.join()

def test_next(component):
    clock.Thread(component.look).start()
"""
    done = suite.run(tests, "--simulated-time", "-W", "ignore", "-k", "front")
    done.assert_outcomes(failed=1, passed=1)
    assert (
        'test_it.py::test_it[front]: E-CLOCK-THREAD the thread "the user\'s" uses a simulated clock'
        in done.stdout.str()
    )


STRANGER = f"""
import threading
{IMPORTS}
go = threading.Event()

def look(component):
    thread = threading.Thread(target=lambda: (go.wait(), component.look()), name="stranger")
    thread.start()
    return thread
"""


def strangers(*tests: str) -> list[str]:
    return [f"test_it.py::{test}: E-CLOCK-THREAD the thread 'stranger' uses a simulated clock" for test in tests]


def test_a_thread_that_uses_the_clock_in_a_teardown_fails_that_test(suite: Suite) -> None:
    tests = f"""{STRANGER}
@pytest.fixture
def late(component):
    yield
    go.set()
    look(component).join()

def test_it(late): pass

def test_next(component): pass
"""
    done = suite.run(tests, "--simulated-time", "-W", "ignore", "-k", "front")
    done.assert_outcomes(passed=2, errors=1)
    (said,) = strangers("test_it[front]")
    assert said in done.stdout.str()
    assert "ERROR test_it.py::test_it[front]" in done.stdout.str()


@pytest.mark.parametrize("arguments", ["component", ""], ids=["bench", "other"])
def test_a_thread_that_uses_the_clock_after_its_test_fails_the_run_by_the_name_of_that_test(
    suite: Suite, arguments: str
) -> None:
    """While another bench test runs, or in real time."""
    tests = f"""{STRANGER}
def test_it(component):
    global thread
    thread = look(component)

def test_next({arguments}):
    go.set()
    thread.join()

def test_last(component): pass
"""
    done = suite.run(tests, "--simulated-time", "-W", "ignore", "-k", "front or next and not imu and not camera")
    done.assert_outcomes(passed=3)
    assert done.ret == pytest.ExitCode.TESTS_FAILED
    (said,) = strangers("test_it[front]")
    assert f"bench 'desk': {said}" in done.stdout.str()


def test_a_thread_of_a_fixture_of_the_session_fails_the_test_that_runs(suite: Suite) -> None:
    tests = f"""{STRANGER}
@pytest.fixture(scope="session")
def server(bench):
    return look(bench.component("front"))

def test_it(component, server): pass

def test_next(component, server):
    go.set()
    server.join()
"""
    done = suite.run(tests, "--simulated-time", "-W", "ignore", "-k", "front")
    done.assert_outcomes(passed=1, failed=1)
    (said,) = strangers("test_next[front]")
    assert said in done.stdout.str()


def test_threads_that_outlive_their_test_are_a_warning_by_name(suite: Suite) -> None:
    tests = f"""{IMPORTS}
@pytest.fixture(scope="module")
def server(bench):
    clock.Thread(clock.Event().wait, name="server").start()

@pytest.fixture
def fixture(component):
    clock.Timer(3600, print).start()  # fixture's

@pytest.mark.needs(name="front")
def test_it(component, flasher, server, fixture):
    flasher.connect()
    clock.Thread(clock.Event().wait, name="test's").start()  # test's
    ends = clock.Event()
    clock.Thread(ends.wait, name="ends").start()
    ends.set()
    joined = clock.Thread(component.look, name="joined")
    joined.start()
    joined.join()

def test_next(component): pass
"""
    done = suite.run(tests, "--simulated-time", "-k", "front")
    done.assert_outcomes(passed=2, warnings=2)
    lines = (suite.folder / "test_it.py").read_text().splitlines()
    for name in ("fixture's", "test's"):
        number = next(number for number, line in enumerate(lines, 1) if line.endswith(f"# {name}"))
        thread = "timer of 3600 s" if name == "fixture's" else "test's"
        done.stdout.fnmatch_lines(
            [f"*test_it.py:{number}: ThreadLeft: *::test_it[[]front] has ended, and its thread*{thread}* has not: *"]
        )
    suite.run(tests, "-k", "front").assert_outcomes(passed=2, warnings=0)


def test_a_thread_that_nothing_ends_fails_the_run_by_name(suite: Suite) -> None:
    tests = f"""{TIMES}
def test_it(component):
    def stubborn():
        while True:
            try:
                clock.sleep(1)
            except BaseException:
                pass
    clock.Thread(stubborn, name="stubborn").start()
    clock.sleep(10)
"""
    done = suite.run(tests, "--simulated-time", "-W", "ignore")
    done.assert_outcomes(passed=1)
    assert done.ret == pytest.ExitCode.TESTS_FAILED
    done.stdout.fnmatch_lines(["bench 'desk': threads that catch whatever ends them*: stubborn at *test_it.py:*"])


def test_a_test_that_never_ends_shows_what_each_thread_waits_for(suite: Suite) -> None:
    tests = f"{TIMES}def test_it(component):\n    clock.Event().wait()\n\ndef test_next(component): component.look()\n"
    done = suite.run(tests, "--simulated-time", "-k", "front")
    done.assert_outcomes(failed=1, passed=1)
    done.stdout.fnmatch_lines(["*Deadlock: every thread waits*", "*main waits for an event at *test_it.py:*"])
    assert "board front waits for " in done.stdout.str()


def test_a_test_that_ticks_for_ever_has_a_limit(suite: Suite) -> None:
    tests = f"{TIMES}def test_it(component):\n    while True: clock.sleep(1000)\n\ndef test_next(component): component.look()\n"
    done = suite.run(tests, "--simulated-time", "-k", "front")
    done.assert_outcomes(failed=1, passed=1)
    done.stdout.fnmatch_lines(["*LimitPassed: *86400 s*"])


def test_a_part_that_a_test_left_off_is_brought_back(suite: Suite) -> None:
    tests = f"""{TIMES}
def test_it(component, power, flasher):
    flasher.connect()
    power.off()
    raise AssertionError

def test_next(component):
    assert running(component).version
"""
    done = suite.run(tests, "--simulated-time", "-k", "front")
    done.assert_outcomes(failed=1, passed=1)
    assert "what passed on the buses" in done.stdout.str()


def test_ctrl_c_makes_the_bench_safe(suite: Suite) -> None:
    tests = f"""{TIMES}
def test_it(component, flasher, power):
    flasher.connect()
    power.off()
    import os, signal
    os.kill(os.getpid(), signal.SIGINT)
    while True:
        clock.sleep(60)
"""
    with start(suite, tests, "--simulated-time") as process:
        said, _ = process.communicate(timeout=60)
    assert process.returncode == pytest.ExitCode.INTERRUPTED, said
    assert "KeyboardInterrupt" in said
    assert "is left as it is" not in said
    assert "INTERNALERROR" not in said


def test_ctrl_c_past_a_test_that_waits_for_nothing(suite: Suite) -> None:
    """Sent from outside, while the clock jumps from second to second."""
    tests = f"""from pathlib import Path
{TIMES}
def test_it(component):
    Path("there").touch()
    while True:
        clock.sleep(0.0001)
"""
    with start(suite, tests, "--simulated-time") as process:
        wait_for(suite.folder / "there", process)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=60)
    assert process.returncode == pytest.ExitCode.INTERRUPTED, said
    assert "INTERNALERROR" not in said


def test_each_worker_of_xdist_has_its_own_clock(suite: Suite) -> None:
    tests = f"{LONG}\n@pytest.mark.needs(name='imu')\ndef test_other(component):\n    clock.sleep(3600)\n"
    done = suite.run(tests, "--simulated-time", "-n", "2", "--dist", "each", f"--junitxml={suite.folder / 'junit.xml'}")
    done.assert_outcomes(passed=4)
    assert [float(told["simulated_seconds"]) // AN_HOUR for told in properties(suite.folder / "junit.xml")] == [1] * 4


@pytest.mark.parametrize("name", ["imu", "front"])
def test_every_run_leaves_the_same_recordings(suite: Suite, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Also where the part draws a seed, as an ECU does."""
    flashing = "def test_it(component, firmware):\n    component.flash(firmware.new.image)\n    clock.sleep(1)\n"
    tests = TIMES.replace("front", name) + flashing
    kept = []
    for run in ("first", "second"):
        monkeypatch.setenv("PROXYFLASH_ARTEFACTS", str(suite.folder / run))
        done = suite.run(tests, "--simulated-time", "--record")
        done.assert_outcomes(passed=1)
        files = sorted((suite.folder / run).rglob("recording.jsonl"))
        kept.append([file.read_bytes() for file in files])
    assert kept[0] == kept[1]
    assert len(kept[0]) == 1
    assert kept[0][0].count(b"\n") > 20


def test_it_costs_nothing_without_bench_tests(suite: Suite) -> None:
    suite.run("def test_it(): pass", "--simulated-time").assert_outcomes(passed=1)
