"""python-can's own suite over the emulated CAN interface, where it uses any interface's bus (LGPL: run as a program)."""

from pathlib import Path

from proxyflash.tests.strangers.suites import differences, fetch, run

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
)
KNOWN = {
    "test_interface_virtual::TestMessageFiltering::test_sendmsg_preserve_timestamp": (
        "a frame's time is that of its end on the wire: a sender can't choose it, as it can't on an adapter"
    ),
    "notifier_test::NotifierTest::test_multiple_bus": "its channels are numbers; the name of an emulated wire is a text",
    "simplecyclic_test::SimpleCyclicSendTaskTest::test_cycle_time": "it looks into the virtual bus's own queue",
    "simplecyclic_test::SimpleCyclicSendTaskTest::test_restart_perodic_tasks": "it looks into the virtual bus's own queue",
}
"""The tests that can't hold, and why."""


def test_its_own_suite(tmp_path: Path) -> None:
    home = fetch("python-can", "test")
    outcomes = run(home, "point_can", tmp_path / "report.xml", *(f"test/{name}.py" for name in FILES))
    assert differences(outcomes, KNOWN) == {}
    assert list(outcomes.values()).count("passed") >= 20  # Those of other kinds of adapter are skipped by the suite.
