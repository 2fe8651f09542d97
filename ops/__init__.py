"""Everything around a run: embedded servers, demo, seed data, benchmarks."""
