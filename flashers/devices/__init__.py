"""Facts about parts, as data: sizes, erase units, identification codes."""
