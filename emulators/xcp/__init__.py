"""Emulated parts that speak XCP, on CAN and on serial lines: ECUs, and boards with OpenBLT."""
