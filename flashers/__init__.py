"""Firmware images, the programming engine, and one file for each bootloader protocol.

`image` is what is written, `memory` what the part has, `base` the one interface to a bootloader, `programmer` the
engine that every bootloader shares. `formats` reads and writes firmware files; `devices` holds part facts as data.
"""
