"""Recordings in the place of the hardware: the session, and a track for each kind of bus."""
