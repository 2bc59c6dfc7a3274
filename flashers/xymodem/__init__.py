"""Bootloaders with a text menu that take a file by XMODEM or YMODEM, and known ones as data."""
