"""UDS on CAN (ISO 14229): what is asked of an ECU's bootloader, and in which order."""
