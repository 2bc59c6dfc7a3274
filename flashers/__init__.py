"""Firmware images, the programming engine, and one folder for each family of bootloader protocols.

`image` is what is written, `memory` what the part has, `base` the one interface to a bootloader, `programmer` the
engine that every bootloader shares. `formats` reads and writes firmware files; `serial` holds what the families on serial
lines share. Facts about parts lie in the folder of their family, as data.
"""
