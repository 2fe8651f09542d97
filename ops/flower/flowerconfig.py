"""How Flower is run: read only, behind a password, with a bounded memory that survives restarts.

The password comes as FLOWER_BASIC_AUTH, the file of its memory as FLOWER_DB, the path at which a
proxy has it as FLOWER_URL_PREFIX; what is set here cannot be changed by the environment, only on
Flower's own command line.
"""

from __future__ import annotations

import os

_user, _, _password = os.environ.get("FLOWER_BASIC_AUTH", "").partition(":")
if not _user or not _password:
    raise SystemExit("mongosplit flower: FLOWER_BASIC_AUTH is not set: give it user:password")
if os.environ.get("FLOWER_UNAUTHENTICATED_API"):
    raise SystemExit("mongosplit flower: FLOWER_UNAUTHENTICATED_API is set: unset it")

address = "127.0.0.1"
port = 5555
read_only = True
# 7.3 kB each: about 150 MB.
max_tasks = 20_000
persistent = True
state_save_interval = 60_000
purge_offline_workers = 600
tasks_columns = "name,args,kwargs,state,result,runtime,retries,worker,received"
