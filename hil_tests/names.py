"""Names that the plugin and what it loads have in common: the plugin imports nothing else before a test needs it."""

SIMULATED_INI = "proxyflash_simulated_time"
"""The ini option."""
SIMULATED = "simulated_seconds"
"""The property of a test in which its report says how long it took on simulated time."""
