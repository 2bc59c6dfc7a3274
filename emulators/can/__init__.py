"""The emulated CAN bus, and the ways to it: python-can, a socket, a real interface, ISO-TP."""
