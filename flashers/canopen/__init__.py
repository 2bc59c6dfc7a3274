"""CANopen: program download after CiA 302-3 by SDO (CiA 301), and node ids by LSS (CiA 305)."""
