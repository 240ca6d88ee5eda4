"""What a run says to who started it: refusals before it, a pulse during it, an end after it. Imports `text` alone."""
