"""What a migration is: declaration, plan, ledger, and what is done with one chunk."""
