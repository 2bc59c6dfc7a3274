"""Tests that interrupt programs hold wherever the tests were started, under nohup and in the background too."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
PROGRAM = "import signal, sys; print(*(int(signal.getsignal(int(word)) == signal.SIG_IGN) for word in sys.argv[1:]))"


def test_what_the_tests_start_ignores_no_signal() -> None:
    command = [sys.executable, "-c", PROGRAM, *(str(int(number)) for number in STOPPING)]
    assert subprocess.run(command, capture_output=True, text=True).stdout == "0 0 0 0\n"


def test_nor_does_it_where_whoever_started_the_tests_does() -> None:
    def ignore() -> None:
        for number in STOPPING:
            signal.signal(number, signal.SIG_IGN)

    name = test_what_the_tests_start_ignores_no_signal.__name__
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "-q", f"{__file__}::{name}"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, preexec_fn=ignore)
    assert (done.returncode, "1 passed" in done.stdout) == (0, True), done.stdout
