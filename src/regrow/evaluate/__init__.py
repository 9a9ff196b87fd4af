"""From a model to predictions and plain numbers."""
