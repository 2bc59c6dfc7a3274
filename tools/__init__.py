"""The command line, and adapters to other systems."""
