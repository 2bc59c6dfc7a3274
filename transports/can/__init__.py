"""CAN: an open bus, how it is opened, and its bit timing."""
