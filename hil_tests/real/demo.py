"""`make demo-real`: the update of `proxyflash demo`, and with it two parts that boot what they are given.

Beside the emulated radar and camera there are a soil sensor, MCUboot and Zephyr on a micro:bit under QEMU, and a motor, an
ATmega328P with its board's bootloader on libsimavr. One manifest updates the four; then the two print, on
their consoles, what they run.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from proxyflash import examples
from proxyflash.benchmarks.measuring import Missing
from proxyflash.hil_tests.real import zephyr_bench
from proxyflash.hil_tests.real.avr import OPTIBOOT, AvrPart, AvrPort, program
from proxyflash.hil_tests.real.qemu import NotInstalled
from proxyflash.hil_tests.real.zephyr import Microbit
from proxyflash.transports.deadline import Deadline
from proxyflash.transports.plain import word
from proxyflash.transports.quoting import shell_line
from proxyflash.transports.serial.port import SerialPort
from proxyflash.transports.toml_text import toml_text

EXAMPLE = Path(next(iter(examples.__path__))) / "three_sensors"
BALLAST = 4000
"""Bytes of data in the motor's program."""
AVR = """
[bus.motor-uart]
kind = "serial"
url = {url}
baudrate = 115_200

[[component]]
name = "motor"
group = "motors"
bus = "motor-uart"
protocol = "stk500v1"
manufacturer = "Contoso"
model = "Motor-2"
boot_timeout = 60
version = {{send = "\\r", match = "FW ([0-9.]+)"}}
"""
BENCH, STATE, UPDATE = "bench.toml", "state", "update/Example.Host.1.6.importmanifest.json"


def prepared(folder: Path, microbit: Microbit, motor: AvrPart) -> None:
    """The example, with the two in the place of its IMU, and their releases."""
    shutil.copytree(EXAMPLE, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    zephyr_bench.write(folder / "soil", microbit)
    before, imu, after = (folder / BENCH).read_text(encoding="utf-8").partition("[bus.imu-uart]")
    _, usb, after = after.partition("[bus.usb]")
    sensors, component, rest = (usb + after).partition('[[component]]\nname = "imu"')
    _, camera, rest = rest.partition('[[component]]\nname = "camera"')
    assert imu
    assert component
    soil = (folder / "soil" / BENCH).read_text(encoding="utf-8").replace("soil-0", "soil/soil-0")
    text = before + sensors + camera + rest + "\n" + soil.replace("soil-2", "soil/soil-2")
    text += AVR.format(url=toml_text(motor.url))
    (folder / BENCH).write_text(text, encoding="utf-8")
    shutil.copy(folder / "soil" / "soil-2.1.0.bin", folder / "update")
    shutil.copy(program(motor.board, "1.5.0", BALLAST), folder / "update" / "motor-1.5.0.elf")


def wire(motor: AvrPart) -> None:
    """Has the motor's line be one whose DTR resets it, which a pseudo-terminal has not."""
    opened = SerialPort.open.__func__  # type: ignore[attr-defined]

    def open_port(cls: type[SerialPort], name: str, settings: Mapping[str, Any]) -> Any:
        if cls is SerialPort and settings["url"] == motor.url:
            port = AvrPort.to(motor)
            if motor.flash()[0] != 0xFF:
                # Its opening has reset it: it waits for a programmer first, and then runs.
                said(port, b"hello")
            return port
        return opened(cls, name, settings)

    SerialPort.open = classmethod(open_port)  # type: ignore[assignment, method-assign]


def said(port: SerialPort, wanted: bytes) -> str:
    """The last line with this on a console."""
    text = b""
    deadline = Deadline.after(60)
    while not (wanted in text and text.endswith(b"\n")):
        text += port.read_some(deadline)
    return [line for line in text.decode(errors="replace").splitlines() if wanted.decode() in line][-1]


def main() -> int:
    from proxyflash.tools import commands
    from proxyflash.tools.output import Output

    with ExitStack() as stack:
        out = Output()
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="proxyflash-demo-")))
        try:
            microbit, motor = stack.enter_context(Microbit()), stack.enter_context(AvrPart(OPTIBOOT))
            prepared(folder, microbit, motor)
        except (Missing, NotInstalled) as missing:
            out.alarm(str(missing))
            return 1
        wire(motor)
        update = folder / "update"
        made: list[str | Path] = ["manifest", "create", "--provider", "Example", "--version", "1.6"]
        names = ("radar", "Example.Soil.1.6", "Example.Motor.1.6", "camera")
        children = [update / f"{name}.importmanifest.json" for name in names]
        soil = [*made, "--name", "Soil", "--group", "soils", "--installed-criteria", "2.1.0", update / "soil-2.1.0.bin"]
        greets = [*made, "--name", "Motor", "--group", "motors", "--installed-criteria", "1.5.0"]
        greets.append(update / "motor-1.5.0.elf")
        host = [*made, "--name", "Host", "--host", "model=bench", "-o", folder / UPDATE]
        for child in children:
            host += ["--child", child]
        old: list[str | Path] = ["flash", "motor", program(motor.board, "1.4.2", BALLAST), "--yes"]
        update_steps: list[list[str | Path]] = [["plan", folder / UPDATE], ["apply", folder / UPDATE, "--yes"]]
        steps: list[list[str | Path]] = [old, soil, greets, host, ["scan"], *update_steps, ["scan"]]
        for step in steps:
            words = [str(word) for word in step]
            out.line()
            out.line(f"$ {shell_line(['proxyflash', *words])}")
            common = [] if words[0] == "manifest" else ["--bench", str(folder / BENCH), "--state", str(folder / STATE)]
            if status := commands.run([*common, *words], out):
                return status
        consoles = (
            ("soil", microbit.url, super(Microbit, microbit).reset, b"Image version"),
            ("motor", motor.url, lambda: motor.tell("reset"), b"hello"),
        )
        for name, url, restart, wanted in consoles:
            port = SerialPort.open(name, {"url": url, "baudrate": 115_200})
            restart()
            out.line()
            out.line(f"{name} says on its console: {word(said(port, wanted))}")
            port.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
