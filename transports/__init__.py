"""The wires: CAN, ISO-TP, serial lines and USB. Opens them, bounds every wait, names every failure.

`errors` has the tree of failures, `deadline` the bound that every blocking call takes; `can`, `isotp`, `serial` and
`usb` hold one wire each. Imports nothing of proxyflash outside this package.
"""
