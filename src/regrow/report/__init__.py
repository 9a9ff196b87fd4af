"""Results as they lie in a folder → one page."""
