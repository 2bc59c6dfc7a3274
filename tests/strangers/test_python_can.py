"""python-can's own suite over the emulated CAN interface, where it uses any interface's bus (LGPL: run as a program)."""

from pathlib import Path

import pytest
from proxyflash.tests.strangers.suites import differences, fetch, files, run

pytestmark = pytest.mark.real_time("a suite that nobody here wrote")

FILES = (
    "back2back_test",
    "contextmanager_test",
    "zero_dlc_test",
    "test_message_filtering",
    "test_bus",
    "test_interface_virtual",
    "network_test",
    "notifier_test",
    "simplecyclic_test",
    "listener_test",
    "test_viewer",
)
KNOWN = {
    "test_interface_virtual::TestMessageFiltering::test_sendmsg_preserve_timestamp": (
        "a frame's time is that of its end on the wire: a sender can't choose it, as it can't on an adapter"
    ),
    "notifier_test::NotifierTest::test_multiple_bus": "its channels are numbers; the name of an emulated wire is a text",
    "simplecyclic_test::SimpleCyclicSendTaskTest::test_cycle_time": "it looks into the virtual bus's own queue",
    "simplecyclic_test::SimpleCyclicSendTaskTest::test_restart_perodic_tasks": "it looks into the virtual bus's own queue",
    "test_viewer::CanViewerTest::test_send": "it sends an error frame, which no controller does on request",
    "test_viewer::CanViewerTest::test_receive": "it sends an error frame, which no controller does on request",
}
"""The tests that can't hold, and why."""
ADAPTER, MOCK, NO_BUS = "it tries another adapter's driver", "its bus is a mock", "it opens no bus"
CLOCK = "its limit of time is too narrow for a machine that does other work"
LEFT_OUT = {
    "back2back_test::BasicTestUdpMulticastBusIPv4": ADAPTER,
    "back2back_test::BasicTestUdpMulticastBusIPv6": ADAPTER,
    "serial_test": ADAPTER,
    "test_cantact": ADAPTER,
    "test_cyclic_socketcan": ADAPTER,
    "test_interface_canalystii": ADAPTER,
    "test_interface_ixxat": ADAPTER,
    "test_interface_ixxat_fd": ADAPTER,
    "test_kvaser": ADAPTER,
    "test_neousys": ADAPTER,
    "test_neovi": ADAPTER,
    "test_pcan": ADAPTER,
    "test_robotell": ADAPTER,
    "test_slcan": ADAPTER,
    "test_socketcan": ADAPTER,
    "test_socketcan_helpers": ADAPTER,
    "test_socketcan_loopback": ADAPTER,
    "test_socketcand": ADAPTER,
    "test_systec": ADAPTER,
    "test_vector": ADAPTER,
    "test_cli": MOCK,
    "test_logger": MOCK,
    "test_player": MOCK,
    "config": "it has no tests",
    "message_helper": "it has no tests",
    "logformats_test": NO_BUS,
    "test_bit_timing": NO_BUS,
    "test_detect_available_configs": NO_BUS,
    "test_interface": NO_BUS,
    "test_load_config": NO_BUS,
    "test_load_file_config": NO_BUS,
    "test_message_class": NO_BUS,
    "test_message_sync": NO_BUS,
    "test_rotating_loggers": NO_BUS,
    "test_scripts": NO_BUS,
    "test_util": NO_BUS,
    "back2back_test::Back2BackTestCase::test_send_periodic_duration": CLOCK,
    "back2back_test::TestThreadSafeBus::test_send_periodic_duration": CLOCK,
    "simplecyclic_test::SimpleCyclicSendTaskTest::test_thread_based_cyclic_send_task": CLOCK,
    "test_bridge": "it waits for channels of the virtual bus itself",
}
"""The files, and tests of files that are run, that aren't run, and why."""


def test_its_own_suite(tmp_path: Path) -> None:
    home = fetch("python-can", "test")
    assert files(home / "test") == {*FILES, *(name for name in LEFT_OUT if "::" not in name)}
    left_out = [f"--deselect=test/{name.replace('::', '.py::', 1)}" for name in LEFT_OUT if "::" in name]
    outcomes = run(home, "point_can", tmp_path / "report.xml", *left_out, *(f"test/{name}.py" for name in FILES))
    assert differences(outcomes, KNOWN) == {}
    assert list(outcomes.values()).count("passed") >= 50  # Those of other kinds of adapter are skipped by the suite.
