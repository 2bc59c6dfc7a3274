"""Bench tests: run unchanged on emulated, virtual-kernel and real buses."""
