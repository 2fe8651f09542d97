"""The stress test of live writes: real processes, killed at random, and every byte compared."""
