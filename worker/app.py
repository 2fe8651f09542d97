"""The Celery application: queues, delivery, limits. Broker and result addresses come from settings.

What each choice protects from was measured and is told in docs/decisions/celery.md. The MongoDB URL
is never part of this configuration: Flower shows it to whoever asks.
"""

from __future__ import annotations

from typing import Any

from celery import Celery, signals
from kombu import Queue

from mongosplit.errors import MongosplitError
from mongosplit.settings import Settings, missing, read_settings

QUEUES = ("migrate", "verify", "rollback", "sync")
SOFT_SECONDS = 75
"""The longest wait for a permit, and less for the chunk than MongoDB's own 60 s."""
HARD_SECONDS = 105
VISIBILITY_SECONDS = 600
"""Longer than a task at its hard limit, its longest countdown and a wait for a permit together."""
LONGEST_COUNTDOWN_SECONDS = 30

app = Celery("mongosplit", include=["worker.tasks", "worker.syncing", "worker.start"])
app.conf.update(
    task_serializer="json",
    result_serializer="json",
    accept_content=["json"],
    task_default_queue="migrate",
    task_queues=[Queue(name) for name in QUEUES],
    task_create_missing_queues=False,
    task_routes={
        "mongosplit.verify_chunk": {"queue": "verify"},
        "mongosplit.close_wave": {"queue": "verify"},
        "mongosplit.rollback_chunk": {"queue": "rollback"},
        "mongosplit.sync_chunks": {"queue": "sync"},
    },
    task_send_sent_event=True,
    worker_send_task_events=True,
    worker_prefetch_multiplier=1,
    worker_disable_prefetch=True,
    worker_cancel_long_running_tasks_on_connection_loss=False,
    worker_max_tasks_per_child=2000,
    broker_connection_retry_on_startup=True,
    broker_transport_options={
        "visibility_timeout": VISIBILITY_SECONDS,
        "unacked_restore_interval": 10,
        "unacked_restore_throttle": 1,
        "queue_order_strategy": "priority",
        "socket_timeout": 30,
        "socket_keepalive": True,
    },
    result_expires=86_400,
    result_chord_expires=7 * 86_400,
    result_backend_always_retry=True,
    result_backend_max_retries=30,
)


def connect(settings: Settings) -> None:
    """Point the application at the settings' Redis."""
    app.conf.broker_url = settings.redis_url
    app.conf.result_backend = settings.redis_url


def _connect_from_environment() -> MongosplitError | None:
    try:
        settings = read_settings()
    except MongosplitError as error:
        return error
    if not settings.redis_url:
        return missing("redis_url", "the Redis that carries the tasks")
    connect(settings)
    if not settings.mongo_url:
        return missing("mongo_url", "the replica set that holds the data")
    return None


_obstacle = _connect_from_environment()


@signals.celeryd_init.connect
def _refuse_to_start(**_: Any) -> None:
    # Raised here and not on import: the producer imports this module and has flags besides.
    if _obstacle is not None:
        raise SystemExit(f"mongosplit worker: {_obstacle.message}\n  {_obstacle.hint}")
