"""What a question is and how it is put."""
