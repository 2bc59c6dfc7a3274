"""Bootloaders of AVR boards (STK500 1 and 2, AVR109), and AVR parts as data."""
