"""What flashers of bootloaders on serial lines share."""
