"""USB: the devices of this host, their strings and failures, and how they are recorded."""
