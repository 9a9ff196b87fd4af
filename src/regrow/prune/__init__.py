"""Which neurons go, and the smaller MLP."""
