"""The cost of imports before a model is read."""
