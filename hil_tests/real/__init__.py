"""Real bootloaders on emulated processors: firmware that nobody here wrote, which really boots what was flashed."""
