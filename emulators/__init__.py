"""The other end of the wire: a flash-memory model, paced and faulty wires, and one folder for each family of bootloaders.

Imports `transports` only, and nothing of the flashers: two ends that share a codec share its mistakes.
"""
