"""An emulated USB device with a DFU interface, and its parts as data."""
