"""The teacher's record and the divergences from it."""
