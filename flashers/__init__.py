"""Firmware images, the programming engine, and one folder for each family of bootloader protocols.

`image` has the bytes to write, `memory` the part's regions, `base` the one interface to a bootloader, `programmer` the
engine that every bootloader shares. `formats` reads and writes firmware files; `serial` holds what the families on serial
lines share. Facts about parts lie in the folder of their family, as data.
"""
