"""Decides and dispatches: the command line, checks, waves and reports."""
