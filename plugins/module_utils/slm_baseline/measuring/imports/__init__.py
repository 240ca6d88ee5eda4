"""What importing costs before a model is read."""
