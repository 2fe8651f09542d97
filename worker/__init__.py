"""Carries out a chunk: the Celery application, its tasks and what a process keeps."""
