"""One loader run: its process, its events, the template that forks loaders, and a replay beside it."""
