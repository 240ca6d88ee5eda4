"""Which files a model consists of, and what their headers say."""
