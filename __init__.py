"""proxyflash: updates the firmware of sensors wired to a host over CAN, serial lines and USB.

Import from the packages below: `proxyflash.enumerators`, `proxyflash.flashers`, `proxyflash.updates`,
`proxyflash.transports`, `proxyflash.emulators`.
"""
