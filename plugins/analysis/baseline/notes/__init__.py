"""The notes of a report, one module a subject: document in, sentences out.

Imports `documents`, `statistics`, `render` and `baseline.result` alone.
"""
