"""States of files and values: changes between them, who owns them, how they are stored."""
