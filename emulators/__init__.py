"""The other end of the wire: a flash-memory model, paced and faulty wires, and one folder for each family of bootloaders.

Nothing here imports an encoder or decoder of the flashers: two ends that share a codec share its mistakes.
"""
