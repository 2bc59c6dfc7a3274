"""SMP (MCUmgr): images for MCUboot's slots, over serial lines and UDP."""
