"""What the tests on real bootloaders share. A part runs as long as its test, and ends with it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from proxyflash.benchmarks import peers
from proxyflash.benchmarks.measuring import Missing
from proxyflash.hil_tests.real import zephyr_firmware as firmware
from proxyflash.hil_tests.real.qemu import NotInstalled
from proxyflash.hil_tests.real.required import pytest_runtest_makereport as pytest_runtest_makereport
from proxyflash.hil_tests.real.zephyr import Microbit, microbit_flash

Smpclient = Callable[..., list[Any]]
NEW = (2, 1, 0)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup() -> Generator[None, Any, Any]:
    """Without its program or its firmware a part's tests are skipped, with what is not installed."""
    try:
        return (yield)
    except (Missing, NotInstalled) as missing:
        pytest.skip(str(missing))


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's bench file or state."""
    monkeypatch.delenv("PROXYFLASH_BENCH", raising=False)
    monkeypatch.setenv("PROXYFLASH_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


@pytest.fixture
def microbit() -> Iterator[Microbit]:
    """As it comes: one application in its first slot, confirmed, version 0.0.0."""
    with Microbit() as part:
        yield part


@pytest.fixture(scope="session")
def old() -> bytes:
    """What the micro:bit runs as it comes."""
    return firmware.find("_qemu_cortex_m0_serial.signed.bin").read_bytes()


@pytest.fixture(scope="session")
def new(old: bytes) -> bytes:
    return firmware.remade(old, NEW)


@pytest.fixture(scope="session")
def new_file(new: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("images") / "microbit-2.1.0.signed.bin"
    path.write_bytes(new)
    return path


@pytest.fixture(scope="session")
def smpclient() -> Smpclient:
    """smpclient on the console at a URL: does some commands in turn, and returns the output of each."""
    program = Path(__file__).with_name("smpclient_peer.py")
    python = peers.environment("smpclient==7.3.0", "pyserial")

    def run(url: str, *words: str | Path) -> list[Any]:
        done = subprocess.run(
            [python, program, url, *words], capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL
        )
        assert done.returncode == 0, done.stderr
        return [next(iter(json.loads(line).values())) for line in done.stdout.splitlines()]

    return run


@pytest.fixture(scope="session")
def pending(new: bytes) -> bytes:
    """The micro:bit's flash when the new image was uploaded, and is to be tried at the next reset."""
    return microbit_flash(new)
