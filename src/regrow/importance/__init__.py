"""What pruning takes from each layer."""
