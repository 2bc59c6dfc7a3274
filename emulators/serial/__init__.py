"""The emulated serial line, the ways to it, and what boards on serial lines share."""
