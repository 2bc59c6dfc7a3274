"""An emulated ECU that speaks UDS, and its parts as data."""
