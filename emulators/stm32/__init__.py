"""An emulated STM32 with its system memory bootloader, and its parts as data."""
