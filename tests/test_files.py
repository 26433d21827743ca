import errno
import os
import stat
from contextlib import nullcontext

import pytest

from s2mlp_cuda import _files


def test_files_are_written_atomically(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"before")
    with pytest.raises(KeyError), _files.atomic_file(path) as file:
        file.write(b"half of")
        raise KeyError
    assert path.read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["file"]


def test_data_is_synced_before_the_file_is_renamed(tmp_path, monkeypatch):
    events = []
    sync, rename = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda number: (events.append("sync"), sync(number)))
    monkeypatch.setattr(os, "replace", lambda *names: (events.append("rename"), rename(*names)))
    _files.write_text(tmp_path / "file", "text")
    assert events == ["sync", "rename", "sync"]  # data, new name, folder


@pytest.mark.parametrize("wrap", [lambda error: error, lambda error: RuntimeError("in a C++ writer")], ids=["direct", "wrapped"])
def test_no_space_left(tmp_path, monkeypatch, wrap):
    def fail(number):
        try:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise wrap(error)  # noqa: B904, as PyTorch does

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left on device") as caught:
        _files.write_text(tmp_path / "file", "text")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path / "file"))
    assert os.listdir(tmp_path) == []


def test_other_errors_keep_their_type(tmp_path):
    with pytest.raises(KeyError), _files.atomic_file(tmp_path / "file"):
        try:
            open(tmp_path / "missing")
        except OSError:
            raise KeyError from None


def test_errors_name_the_file_and_not_the_temporary_one(tmp_path):
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "folder", tmp_path / "missing" / "file"):
        with pytest.raises(OSError) as caught:
            _files.write_text(path, "text")
        assert caught.value.filename == str(path)


def test_two_writers_of_a_file_do_not_disturb_each_other(tmp_path):
    path = tmp_path / "file"
    with _files.atomic_file(path) as first, _files.atomic_file(path) as second:
        first.write(b"first")
        second.write(b"second")
    assert path.read_bytes() == b"first"
    assert os.listdir(tmp_path) == ["file"]


def test_permissions_are_those_of_any_new_file_and_links_are_followed(tmp_path):
    (tmp_path / "link").symlink_to("file")
    mask = os.umask(0o027)
    try:
        _files.write_text(tmp_path / "link", "text")
    finally:
        os.umask(mask)
    assert (tmp_path / "link").is_symlink() and (tmp_path / "file").read_text() == "text"
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


def test_longest_names(tmp_path):
    _files.write_text(tmp_path / ("x" * 255), "text")
    assert os.listdir(tmp_path) == ["x" * 255]


def test_leftovers_of_killed_writers_are_removed(tmp_path):
    child = os.fork()
    if child == 0:
        with _files.atomic_file(tmp_path / "file") as file:
            file.write(b"half")
            os._exit(0)
    os.waitpid(child, 0)
    (leftover,) = os.listdir(tmp_path)
    (tmp_path / ".mine.tmp").touch()
    _files.remove_leftovers(tmp_path)
    assert leftover != ".mine.tmp" and os.listdir(tmp_path) == [".mine.tmp"]


def write_file(path):
    _files.write_text(path, "text")


def write_several(path):
    with _files.replaced_files(path) as written:
        written.write_text("text")


def killed_while(context):
    child = os.fork()
    if child == 0:
        with context:
            os._exit(0)
    os.waitpid(child, 0)


@pytest.mark.parametrize("killed", [_files.atomic_file, _files.replaced_files])
@pytest.mark.parametrize("write", [write_file, write_several])
def test_the_next_writer_of_a_file_removes_what_a_killed_one_left(tmp_path, killed, write):
    killed_while(killed(tmp_path / "file"))
    killed_while(killed(tmp_path / "other"))
    assert len(os.listdir(tmp_path)) == 2
    write(tmp_path / "file")
    assert len(os.listdir(tmp_path)) == 2 and (tmp_path / "file").read_text() == "text"
    write(tmp_path / "other")
    assert sorted(os.listdir(tmp_path)) == ["file", "other"]


def test_without_locks_nothing_of_others_is_removed(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", no_locks)
    with _files.atomic_file(tmp_path / "file") as first:
        _files.write_text(tmp_path / "file", "second")
        first.write(b"first")
    assert (tmp_path / "file").read_text() == "first"


def test_a_temporary_file_that_is_removed_before_it_is_locked(tmp_path, monkeypatch):
    """By another writer, which takes it for one of a killed writer."""
    opened, removed = os.open, []

    def remove_first(path, *arguments):
        if not removed and os.path.exists(path):
            removed.append(path)
            os.unlink(path)
        return opened(path, *arguments)

    monkeypatch.setattr(os, "open", remove_first)
    _files.write_text(tmp_path / "file", "text")
    assert removed and os.listdir(tmp_path) == ["file"]


def test_errors_of_several_files_name_the_file(tmp_path):
    with pytest.raises(FileNotFoundError) as caught, _files.replaced_files(tmp_path / "missing" / "file"):
        pass
    assert caught.value.filename == str(tmp_path / "missing" / "file")


def test_several_files_are_replaced_or_none(tmp_path):
    path = tmp_path / "model"
    path.write_text("old")
    for fails in (True, False):
        with pytest.raises(KeyError) if fails else nullcontext(), _files.replaced_files(path) as written:
            (written.parent / "model.data").write_text("new")
            written.write_text("new")
            if fails:
                raise KeyError
        assert path.read_text() == ("old" if fails else "new")
        assert sorted(os.listdir(tmp_path)) == (["model"] if fails else ["model", "model.data"])


@pytest.fixture
def folder(tmp_path):
    """Two files of one set, and another file."""
    for name in ("a", "b", "other"):
        (tmp_path / name).write_text("old")
    return tmp_path


def contents(folder, *names):
    return [_files.current(folder, name).read_text() for name in names]


def write_both(folder, text="new"):
    with _files.replaced_together(folder) as files:
        for name in ("a", "b"):
            (files / name).write_text(text)


def test_files_of_a_set_are_replaced_together(folder):
    write_both(folder)
    assert contents(folder, "a", "b", "other") == ["new", "new", "old"] and sorted(os.listdir(folder)) == ["a", "b", "other"]
    with pytest.raises(KeyError), _files.replaced_together(folder) as files:
        (files / "a").write_text("half")
        raise KeyError
    assert contents(folder, "a", "b") == ["new", "new"] and sorted(os.listdir(folder)) == ["a", "b", "other"]


@pytest.mark.parametrize("moved", [0, 1])
def test_a_set_that_was_not_moved_is_found_and_moved_by_the_next(folder, monkeypatch, moved):
    """As if the process had been killed before the first file is moved, or before the second."""
    seen = []

    def replace(source, target, rename=os.replace):
        seen.append(target)
        if len(seen) > 1 + moved:
            raise OSError(errno.EIO, "killed")
        rename(source, target)

    with monkeypatch.context() as patched, pytest.raises(OSError, match="killed"):
        patched.setattr(os, "replace", replace)
        write_both(folder)
    assert contents(folder, "a", "b") == ["new"] * 2 and len(os.listdir(folder)) == 4
    with pytest.raises(KeyError), _files.replaced_together(folder):
        raise KeyError
    assert contents(folder, "a", "b") == ["new"] * 2
    write_both(folder, "newest")
    assert contents(folder, "a", "b") == ["newest"] * 2 and sorted(os.listdir(folder)) == ["a", "b", "other"]


def test_processes_that_write_the_same_set(folder):
    children = []
    for number in range(4):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                for _ in range(30):
                    write_both(folder, f"{number}")
                status = 0
            finally:
                os._exit(status)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    first, second = contents(folder, "a", "b")
    assert first == second != "old" and sorted(os.listdir(folder)) == ["a", "b", "other"]
