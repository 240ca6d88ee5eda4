"""The rollback: the snapshot before the first change, and the restore from it."""
