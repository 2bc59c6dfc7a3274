"""ST's system memory bootloader (AN2606, AN3155), and STM32 parts as data."""
