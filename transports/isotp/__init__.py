"""ISO-TP: channels on a CAN bus, of our own or of the kernel."""
