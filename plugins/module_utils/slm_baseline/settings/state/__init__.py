"""States of files and values: changes between them, their ownership, and how they are stored."""
