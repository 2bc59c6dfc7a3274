"""A ring of parts, each at a node number from 0 to 255, and a small bootloader on it: what a package adds to proxyflash.

A frame has a node and up to 255 bytes. The host asks, the node answers.
"""
