"""An emulated CANopen device with program download, written after CiA 301, 302-3 and 305."""
