"""The component record, the bench file (the inventory of what is wired to this host), one prober for each kind of bus."""
