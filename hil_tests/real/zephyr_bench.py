"""A bench file for the Zephyr part that swaps, as a user would write it; and the part served for one.

    python -m proxyflash.hil_tests.real.zephyr_bench FOLDER

Starts the part, writes bench.toml and two releases into FOLDER, and keeps the part running until it is interrupted. Then
in another shell, for instance:

    proxyflash --bench FOLDER/bench.toml scan
    proxyflash --bench FOLDER/bench.toml flash soil FOLDER/soil-2.1.0.bin
    pytest hil_tests --bench FOLDER/bench.toml --allow-flash
"""

from __future__ import annotations

import shlex
import signal
import sys
from pathlib import Path

from proxyflash.hil_tests.real import zephyr_firmware as firmware
from proxyflash.hil_tests.real.zephyr import Microbit
from proxyflash.transports.plain import plain
from proxyflash.transports.toml_text import toml_text

BENCH = """\
[bus.soil-uart]
kind = "serial"
url = {url}

[[component]]
name = "soil"
group = "soils"
bus = "soil-uart"
protocol = "smp"
manufacturer = "Contoso"
model = "Soil-1"
boot_timeout = 60
images = [
    {{file = "soil-0.0.0.bin", version = "0.0.0"}},
    {{file = "soil-2.1.0.bin", version = "2.1.0"}},
]

[component.profile]
{profile}

[power.soil]
off = {off}
on = {on}
"""
NEW = (2, 1, 0)


def write(folder: Path, part: Microbit, profile: str = "") -> Path:
    """The bench file; its releases lie beside it. `profile`: lines of the component's profile. Raises Missing."""
    old = firmware.find("_qemu_cortex_m0_serial.signed.bin").read_bytes()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "soil-0.0.0.bin").write_bytes(old)
    (folder / "soil-2.1.0.bin").write_bytes(firmware.remade(old, NEW))
    path = folder / "bench.toml"
    tell = [sys.executable, "-m", "proxyflash.hil_tests.real.qemu", str(part.qemu.qmp_path)]
    off, on = (toml_text(shlex.join([*tell, *words])) for words in (["stop"], ["system_reset", "cont"]))
    path.write_text(BENCH.format(url=toml_text(part.url), off=off, on=on, profile=profile), encoding="utf-8")
    return path


def main(folder: Path) -> None:
    with Microbit() as part:
        sys.stdout.write(f"{plain(str(write(folder, part)))}\n")
        sys.stdout.flush()
        signal.sigwait({signal.SIGINT, signal.SIGTERM})


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    main(Path(sys.argv[1]))
