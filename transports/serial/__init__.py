"""Serial lines: an open port, how it is opened, and the USB adapter behind it."""

MOST_RATE = 0x7FFF_FFFF
"""Bit/s. pyserial gives Linux a bit rate as a signed number of 32 bits."""
