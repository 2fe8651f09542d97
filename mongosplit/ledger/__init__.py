"""The durable book of runs and chunks; these modules are the only writers of it."""
