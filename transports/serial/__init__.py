"""Serial lines: an open port, how it is opened, and the USB adapter behind it."""
