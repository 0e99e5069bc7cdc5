"""The cache of measured times: no state of it or of the environment stops compile."""

import errno
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import sparsejax as sj
from sparsejax.compiler.layouts import times
from sparsejax.compiler.layouts.times import Sample


def content(**measured):
    return json.dumps({"machine": times.machine(), "times": measured})


# what the file holds
DAMAGED = {
    "empty": b"",
    "half": content(a=[1.0, 1]).encode()[:-7],
    "binary": bytes(range(256)),
    "list": b"[1]",
    "number": b"1",
    "null": b"null",
    "nested": b"[" * 100_000,
    "no machine": b'{"times": {}}',
    "another machine": b'{"machine": "another", "times": {}}',
    "machine of another type": b'{"machine": ["a"], "times": {}}',
    "no times": content().replace("times", "time").encode(),
    "times of another type": content().replace("{}", "[1]").encode(),
    "text": content(a="b").encode(),
    "number as text": content(a=["1.5", 1]).encode(),
    "null time": content(a=[None, 1]).encode(),
    "list as time": content(a=[1.0]).encode(),
    "true": content(a=[True, 1]).encode(),
    "zero": content(a=[0.0, 1]).encode(),
    "negative": content(a=[-1.0, 1]).encode(),
    "NaN": content(a=[float("nan"), 1]).encode(),
    "infinity": content(a=[float("inf"), 1]).encode(),
    "a denormal": content(a=[5e-324, 1]).encode(),
    "a large integer": content(a=[10**400, 1]).encode(),
    "a bare number": content(a=1.5).encode(),
    "no measurement": content(a=[1.5, 0]).encode(),
    "half a measurement": content(a=[1.5, 0.5]).encode(),
    "too many digits": content(a=[1.5, 1]).replace("1.5", "9" * 5000).encode(),
}


@pytest.fixture
def path(tmp_path, monkeypatch):
    path = tmp_path / "deep" / "times.json"
    path.parent.mkdir()
    monkeypatch.setenv("SPARSEJAX_CACHE", str(path))
    return path


def compile_once():
    """A function with one product, measured."""
    matrix = np.eye(16, dtype=np.float32)
    fast = sj.compile(lambda matrix, x: x @ matrix, matrix, jnp.ones((2, 16)))
    assert fast.report().layers[0].microseconds > 0


@pytest.mark.parametrize("damage", DAMAGED.values(), ids=DAMAGED)
def test_damage_gives_a_warning_and_is_mended_by_the_next_writer(path, damage):
    path.write_bytes(damage)
    with pytest.warns(UserWarning, match="ignores its cache"):
        assert times.read_cache() == {}
    times.write_cache({"b": Sample(2.0, 1)})
    assert times.read_cache() == {"b": (2.0, 1)}


def test_a_file_without_end_is_not_read(path):
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.warns(UserWarning, match="1099511627776 bytes"):
        assert times.read_cache() == {}


@pytest.mark.parametrize("value", ["off", "OFF"])
def test_off_reads_and_writes_nothing(path, monkeypatch, value):
    monkeypatch.setenv("SPARSEJAX_CACHE", value)
    monkeypatch.chdir(path.parent)
    compile_once()
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("folder", ["XDG_CACHE_HOME", "HOME"])
def test_an_empty_name_stands_for_the_users_folder(path, monkeypatch, folder):
    monkeypatch.setenv("SPARSEJAX_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")
    monkeypatch.setenv(folder, str(path.parent))
    root = path.parent if folder == "XDG_CACHE_HOME" else path.parent / ".cache"
    compile_once()
    assert (root / "sparsejax" / "times.json").is_file()


def test_a_user_without_a_home_has_no_cache(monkeypatch):
    monkeypatch.delenv("SPARSEJAX_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)

    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    with pytest.warns(UserWarning, match="keeps no times"):
        compile_once()


def special(kind, path):
    """A thing at `path` that is no regular file, or cannot be one."""
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/null")
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "long name":
        return path.with_name("x" * 300)
    elif kind == "file as folder":
        path.write_text("")
        return path / "times.json"
    return path


@pytest.mark.parametrize(
    "kind", ["folder", "pipe", "device", "loop", "long name", "file as folder"]
)
def test_only_regular_files_are_read_and_replaced(path, monkeypatch, kind):
    named = special(kind, path)
    monkeypatch.setenv("SPARSEJAX_CACHE", str(named))
    before = os.lstat(path).st_mode if kind != "long name" else 0
    with pytest.warns(UserWarning, match="ignores its cache|cannot write its cache"):
        compile_once()
    assert before == (os.lstat(path).st_mode if kind != "long name" else 0)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name] * (kind != "long name")


def test_devices_stay_devices(monkeypatch):
    monkeypatch.setenv("SPARSEJAX_CACHE", "/dev/null")
    with pytest.warns(UserWarning, match="regular file"):
        times.write_cache({"a": Sample(1.0, 1)})
    assert Path("/dev/null").is_char_device()


def test_links_and_permissions_stay(path):
    target = path.parent / "target.json"
    target.write_text(content(a=[1.0, 1]))
    target.chmod(0o640)
    path.symlink_to(target)
    times.write_cache({"b": Sample(2.0, 1)})
    assert path.is_symlink()
    assert target.stat().st_mode & 0o777 == 0o640
    assert times.read_cache() == {"a": (1.0, 1), "b": (2.0, 1)}


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EIO])
@pytest.mark.parametrize("call", ["mkstemp", "replace"])
def test_a_write_that_fails_leaves_what_was_there(path, monkeypatch, code, call):
    times.write_cache({"a": Sample(1.0, 1)})

    def fail(*_args, **_options):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(times.tempfile if call == "mkstemp" else times.os, call, fail)
    with pytest.warns(UserWarning, match="cannot write its cache"):
        times.write_cache({"b": Sample(2.0, 1)})
    assert times.read_cache() == {"a": (1.0, 1)}
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_a_measured_zero_is_a_time(path, monkeypatch):
    from sparsejax.compiler.layouts import tune

    monkeypatch.setattr(tune, "profile", lambda lowered, **_: [0.0] * 10)
    compile_once()
    assert {sample.micros for sample in times.read_cache().values()} == {times.SHORTEST}
    compile_once()


WRITER = """
import sys
from sparsejax.compiler.layouts import times
for i in range(30):
    times.write_cache({f"{sys.argv[1]} {i}": times.Sample(1.0, 1)})
    assert f"{sys.argv[1]} {i}" in times.read_cache()
"""


def test_no_writer_loses_times_and_no_reader_sees_half_a_file(path):
    """Warnings are errors, here and in the processes."""
    run = [sys.executable, "-W", "error::UserWarning", "-c", WRITER]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    processes = [subprocess.Popen([*run, str(i)], env=environment) for i in range(1)]

    def write(name):
        for i in range(30):
            times.write_cache({f"{name} {i}": Sample(1.0, 1)})

    threads = [threading.Thread(target=write, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    while any(process.poll() is None for process in processes):
        times.read_cache()
    for thread in threads:
        thread.join()
    assert [process.returncode for process in processes] == [0]
    assert len(times.read_cache()) == 3 * 30
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_times_of_other_kernels_are_not_used(path, monkeypatch):
    times.write_cache({"a": Sample(1.5, 2)})
    assert times.read_cache() == {"a": Sample(1.5, 2)}
    monkeypatch.setattr(times, "kernels", lambda: "another build")
    times.machine.cache_clear()
    try:
        with pytest.warns(UserWarning, match="another build"):
            assert times.read_cache() == {}
    finally:
        times.machine.cache_clear()
