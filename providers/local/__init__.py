"""One's own GPU: trainings as processes of this machine, with no money and the same ledger."""
