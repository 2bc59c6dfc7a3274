"""XCP (ASAM MCD-1 XCP), and OpenBLT, a bootloader that speaks it."""
