"""The fleet's tuning audit: hosts' answers in, one verdict and its files out. Imports `text` alone."""
