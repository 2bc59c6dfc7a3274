"""USB DFU 1.1 and ST's DfuSe: what is asked of a device in its bootloader, and in which order."""
