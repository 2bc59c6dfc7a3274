"""Facts about the emulated parts, as data: geometry, identity, times."""
