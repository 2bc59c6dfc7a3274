"""Firmware file formats: bytes of a file in, a `FirmwareImage` out, and back."""
