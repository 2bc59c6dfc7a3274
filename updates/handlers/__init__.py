"""Step handlers: what a step of each type does, and what they share."""
