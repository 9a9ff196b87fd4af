"""What a study takes before it runs: memory, disk, operations and time."""
