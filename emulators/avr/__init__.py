"""Emulated AVR boards with their bootloaders, and their parts as data."""
