"""An emulated part whose bootloader takes a file by XMODEM or YMODEM, and its parts as data."""
