"""Comparing a host with what is wanted: facts, rows of drift, and other writers of the same settings."""
