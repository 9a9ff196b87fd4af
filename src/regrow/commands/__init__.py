"""What is no DVC stage: one file a command."""
