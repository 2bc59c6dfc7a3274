"""Switches the supplies and wires of served parts from other programs: words written into a FIFO, answers from another.

    echo off imu >control && read answer <control.answer && test "$answer" = ok

`off NAME`, `on NAME`: the supply of a part. `reset NAME`: its reset line, for a moment. `cut BUS`, `join BUS`: everything
that passes on an emulated wire is lost, until it is joined. The answer is "ok", or what is wrong with what was written.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..transports import clock, private_files
from .device import EmulatedDevice

LONGEST = 4096
"""Bytes that are read at once: what a FIFO takes in one piece."""


class Control:
    """Obeys until it is closed. Raises FileExistsError when something lies at `path`.

    `devices`, `wires`: what is served, by name.
    """

    def __init__(self, path: Path, devices: Mapping[str, EmulatedDevice], wires: Mapping[str, Any]) -> None:
        clock.real(f"the pipe {path}")
        self._paths = (path, path.with_name(path.name + ".answer"))
        self._devices = devices
        self._wires = wires
        self._plans = {name: wire.faults.plan for name, wire in wires.items()}
        # Both ends are held open, so that no writer's end ends the reading, and no answer waits for a reader.
        self._commands, self._answers = map(private_files.fifo, self._paths)
        self._ended, self._end = os.pipe()
        self._thread = clock.Thread(target=self._run, name="control")
        self._thread.start()

    def close(self) -> None:
        os.write(self._end, b".")
        self._thread.join()
        for descriptor in (self._commands, self._answers, self._ended, self._end):
            os.close(descriptor)
        for fifo in self._paths:
            fifo.unlink(missing_ok=True)

    def _run(self) -> None:
        waiting = b""
        while True:
            ready, _, _ = select.select([self._commands, self._ended], [], [])
            if self._ended in ready:
                return
            waiting += os.read(self._commands, LONGEST)
            *lines, waiting = waiting.split(b"\n")
            for line in lines:
                self._answer(self._obey(line.decode("utf-8", "replace")))

    def _answer(self, text: str) -> None:
        # What nobody has fetched is an answer to somebody who is gone.
        with suppress(BlockingIOError):
            os.read(self._answers, LONGEST)
        os.write(self._answers, text.encode() + b"\n")

    def _obey(self, line: str) -> str:
        verb, _, name = line.strip().partition(" ")
        verbs: dict[str, tuple[Mapping[str, Any], Callable[[str], None]]] = {
            "off": (self._devices, lambda name: self._devices[name].supply.off()),
            "on": (self._devices, self._on),
            "reset": (self._devices, self._reset),
            "cut": (self._wires, self._cut),
            "join": (self._wires, self._join),
        }
        if verb not in verbs:
            return f"{verb[:40]!r} is none of {', '.join(verbs)}"
        known, action = verbs[verb]
        if name not in known:
            return f"{name[:40]!r} is none of {', '.join(known)}"
        action(name)
        return "ok"

    def _on(self, name: str) -> None:
        self._devices[name].supply.on()
        self._devices[name].settle()

    def _reset(self, name: str) -> None:
        self._devices[name].reset()
        self._devices[name].settle()

    def _cut(self, name: str) -> None:
        self._wires[name].faults.plan = replace(self._plans[name], drop=1.0, first=1, last=0)

    def _join(self, name: str) -> None:
        self._wires[name].faults.plan = self._plans[name]
