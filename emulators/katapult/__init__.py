"""Emulated boards with Katapult, on CAN and on serial lines."""
