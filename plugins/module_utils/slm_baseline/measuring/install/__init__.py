"""The needs of a measurement on a host: a folder, an interpreter with its packages, and a model built there."""
