"""Emulated parts with NXP's MBoot."""
