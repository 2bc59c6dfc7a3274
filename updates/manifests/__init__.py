"""Manifests: reading, checking, signing and creating them, and what an update comes to."""
