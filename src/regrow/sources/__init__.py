"""From the outside world to verified local files."""
