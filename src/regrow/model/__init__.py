"""A model as this project runs it."""
