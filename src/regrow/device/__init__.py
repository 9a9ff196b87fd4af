"""Models in an embedded runtime, llama.cpp: files, scores, measurements, and what they decide."""
