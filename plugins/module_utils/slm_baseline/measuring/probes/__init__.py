"""What is read of the machine around a run: page cache, disk, memory, GPUs, and what else it is doing."""
