"""What a measurement needs on a host: a folder, an interpreter with its packages, a model that is built there."""
