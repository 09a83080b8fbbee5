"""Files are whole or absent, whatever happens while they are written."""

import errno
import os
import signal
import subprocess
import sys
import threading

import pytest

from streamkws.whole import check_writable, whole_file, write_whole


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_written_and_replaced_and_nothing_is_left_beside_it(tmp_path):
    for content in (b"one", b"", b"three" * 100_000):
        write_whole(tmp_path / "a", content)
        assert (tmp_path / "a").read_bytes() == content and names(tmp_path) == ["a"]


def test_what_raises_leaves_the_old_file(tmp_path):
    write_whole(tmp_path / "a", b"old")
    for place in (tmp_path / "a", tmp_path / "new"):
        with pytest.raises(KeyboardInterrupt), whole_file(place) as file:
            file.write(b"half")
            raise KeyboardInterrupt
    assert names(tmp_path) == ["a"] and (tmp_path / "a").read_bytes() == b"old"


def test_a_file_is_flushed_before_it_is_renamed(tmp_path, monkeypatch):
    real, told = os.fsync, []

    def fsync(number):
        told.append((os.readlink(f"/proc/self/fd/{number}"), names(tmp_path)))
        real(number)

    if not os.path.exists("/proc/self/fd"):
        pytest.skip("needs /proc")
    monkeypatch.setattr(os, "fsync", fsync)
    write_whole(tmp_path / "a", b"content")
    assert told == [(str(tmp_path / "a.part"), ["a.part"]), (str(tmp_path), ["a"])]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO])
@pytest.mark.parametrize("place", ["fsync", "replace", "open"])
def test_an_error_names_the_file(tmp_path, monkeypatch, number, place):
    write_whole(tmp_path / "a", b"old")

    def fail(*_):
        raise OSError(number, os.strerror(number), "somewhere else")

    monkeypatch.setattr(os, place, fail)
    with pytest.raises(OSError) as error:
        write_whole(tmp_path / "a", b"new")
    monkeypatch.undo()
    assert (error.value.errno, error.value.filename) == (number, str(tmp_path / "a"))
    assert names(tmp_path) == ["a"] and (tmp_path / "a").read_bytes() == b"old"


def test_a_folder_that_vanished_and_a_file_in_its_place(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No such file or directory: .*gone/a'"):
        write_whole(tmp_path / "gone" / "a", b"new")
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        write_whole(tmp_path / "file" / "a", b"new")
    with pytest.raises(IsADirectoryError):
        write_whole(tmp_path, b"new")


def test_a_new_file_replaces_none(tmp_path):
    write_whole(tmp_path / "a", b"old", is_new=True)
    with pytest.raises(FileExistsError, match=r"File exists: .*a'"):
        write_whole(tmp_path / "a", b"new", is_new=True)
    assert names(tmp_path) == ["a"] and (tmp_path / "a").read_bytes() == b"old"


def test_only_whether_a_file_can_be_written(tmp_path):
    check_writable(tmp_path / "a")
    assert names(tmp_path) == []
    write_whole(tmp_path / "a", b"old")
    check_writable(tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"old"
    with pytest.raises(FileNotFoundError):
        check_writable(tmp_path / "gone" / "a")


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX files")
def test_links_devices_and_permissions_stay(tmp_path):
    write_whole(tmp_path / "a", b"old")
    (tmp_path / "a").chmod(0o600)
    (tmp_path / "link").symlink_to("a")
    write_whole(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "a").read_bytes() == b"new"
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600
    write_whole("/dev/null", b"new")
    check_writable("/dev/null")
    assert not os.path.isfile("/dev/null")
    os.mkfifo(tmp_path / "pipe")
    heard = []
    reader = threading.Thread(target=lambda: heard.append((tmp_path / "pipe").read_bytes()))
    reader.start()
    write_whole(tmp_path / "pipe", b"through")
    reader.join()
    assert heard == [b"through"]


def test_writers_of_one_file_wait_for_each_other(tmp_path):
    contents = [bytes([number]) * 300_000 for number in range(8)]
    threads = [
        threading.Thread(target=lambda c=content: [write_whole(tmp_path / "a", c) for _ in range(20)])
        for content in contents
    ]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        if (tmp_path / "a").exists():
            assert (tmp_path / "a").read_bytes() in contents
    assert names(tmp_path) == ["a"]


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_what_a_killed_writer_leaves_is_taken_over(tmp_path):
    script = """
import sys
from streamkws.whole import whole_file
with whole_file(sys.argv[1]) as file:
    file.write(b"much more than comes later")
    file.flush()
    print("half", flush=True)
    sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "a")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout.readline() == b"half\n"
        os.kill(writer.pid, signal.SIGKILL)
    assert names(tmp_path) == ["a.part"]
    write_whole(tmp_path / "a", b"new")
    assert names(tmp_path) == ["a"] and (tmp_path / "a").read_bytes() == b"new"
