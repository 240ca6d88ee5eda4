"""What a report points out, one module a subject: document in, sentences out. Imports `text` and `result` alone."""
