"""Manifests: reading, checking, signing and creating them, and the full content of an update."""
