"""Katapult (formerly CanBoot), the bootloader of 3D printers' and drones' boards, on CAN and on serial lines."""
