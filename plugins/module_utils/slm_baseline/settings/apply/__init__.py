"""The way forward: whether a tuning can be applied, and applying it as one transaction."""
