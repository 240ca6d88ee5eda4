"""Readings of the machine around a run: page cache, disk, memory, GPUs, and other activity."""
