"""Keys for the seeds of parts, which several protocols ask for."""
