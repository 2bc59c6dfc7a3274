"""The component record, the bench file (what is wired to this host), and one prober for each kind of bus."""
