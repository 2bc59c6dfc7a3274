"""What passed on the buses: the recorder, and the files that it is kept in."""
