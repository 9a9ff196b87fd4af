"""What every stage stands on and no result depends on; no stage names it among its dependencies."""
