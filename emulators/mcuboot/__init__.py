"""An emulated MCUboot: what it makes of the images in its slots."""
