"""From predictions to measures, intervals, tests and verdicts."""
