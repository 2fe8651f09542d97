"""A page on a run for the browser: read-only, behind a token, live by server-sent events."""
