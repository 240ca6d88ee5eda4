"""Containers: what runtimes tell of them, and which files of the host their processes' files are.

Takes in mounts and the answers of docker and podman, gives out containers and paths of the host. Imports `host` alone.
"""
