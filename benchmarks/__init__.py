"""What the stages take on this machine, beside other tools and the machine's own ceilings."""
