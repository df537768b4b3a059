"""Everything that writes rows of the queue: planned, recorded in a ledger, undoable."""
