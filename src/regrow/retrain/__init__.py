"""The loop that both losses share, and cross-entropy."""
