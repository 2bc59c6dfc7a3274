"""Bench files with one emulated part of each kind, at the wire's true pace, whose profiles have their defaults."""

from __future__ import annotations

VECTORS = bytes.fromhex("0c 94 40 00")
"""JMP 0x80 (AVR instruction set manual)."""
UDS = """
[bus.b]
kind = "can"
emulated = true
[[component]]
name = "part"
bus = "b"
protocol = "uds"
address = {request = 0x7E0, response = 0x7E8}
emulated = {part = "acme-r77", firmware = "old.bin"}
profile = {memory = [{start = 0x10000, size = 0x70000, erase_unit = 4096}], security = {key = "xor", secret = "5a5a5a5a"}}
"""

CANOPEN = """
[bus.b]
kind = "can"
emulated = true
[[component]]
name = "part"
bus = "b"
protocol = "canopen"
address = {node = 5}
emulated = {part = "encoder", firmware = "old.bin"}
"""

KATAPULT = """
[bus.b]
kind = "can"
emulated = true
[[component]]
name = "part"
bus = "b"
protocol = "katapult-can"
address = {uuid = "00d1a5e7c0de", version_request = 0x120, version_response = 0x121}
emulated = {part = "toolhead-f072", firmware = "old.bin"}
profile = {version = {send = "01", match = "FW ([0-9.]+)"}}
"""

MBOOT = """
[bus.b]
kind = "can"
emulated = true
[[component]]
name = "part"
bus = "b"
protocol = "mboot-can"
address = {version_request = 0x120, version_response = 0x121}
emulated = {part = "frdm-kl25z", firmware = "old.bin", detect = 0.5}
profile = {enter = {id = 0x122, data = "01"}, version = {match = "FW ([0-9.]+)"}}
"""
XCP = """
[bus.b]
kind = "can"
emulated = true
[[component]]
name = "part"
bus = "b"
protocol = "xcp-can"
address = {request = 0x7E0, response = 0x7E8, version_request = 0x120, version_response = 0x121}
emulated = {part = "ecu-block", firmware = "old.bin", secret = "5a5a"}

[component.profile]
memory = [{start = 0x20000, size = 0x38000, erase_unit = 0x4000}]
write_alignment = 8
security = {key = "xor", secret = "5a5a"}
version = {send = "01", match = "FW ([0-9.]+)"}
"""


def stm32_can(protocol: str, part: str, bus: str = "") -> str:
    """`bus`: further lines of its table."""
    return f"""
[bus.b]
kind = "can"
emulated = true
{bus}
[[component]]
name = "part"
bus = "b"
protocol = "{protocol}"
address = {{version_request = 0x120, version_response = 0x121}}
emulated = {{part = "{part}", firmware = "old.bin"}}
profile = {{enter = {{id = 0x7F0, data = "b0 07"}}, version = {{send = "01", match = "FW ([0-9.]+)"}}}}
"""


def serial(protocol: str, part: str, profile: str = "", emulated: str = "") -> str:
    """`profile`, `emulated`: further keys of these tables."""
    return f"""
[bus.b]
kind = "serial"
emulated = true
baudrate = 115200
dtr = false
rts = false
[[component]]
name = "part"
bus = "b"
protocol = "{protocol}"
emulated = {{part = "{part}", firmware = "old.bin"{emulated}}}
profile = {{{profile}}}
"""
