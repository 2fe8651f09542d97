"""The marketplace's application as a load: what it writes, what it feels, what becomes of it."""
