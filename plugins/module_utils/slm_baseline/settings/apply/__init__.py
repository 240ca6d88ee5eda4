"""Applying a tuning: the checks before it, and the transaction that applies it."""
