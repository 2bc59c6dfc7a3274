"""The bench file: what it may say, where a key stands in it, and how it is written."""
