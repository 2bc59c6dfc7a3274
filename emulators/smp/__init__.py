"""An emulated part that speaks SMP, and its parts as data."""
