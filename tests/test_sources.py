"""Sources: what a scan finds, what it skips, and that it yields each file once."""

import io
import os
import socket
import sqlite3
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgsearch.errors import SourceError
from imgsearch.events import Counted, Event
from imgsearch.sources import (
    Candidate,
    ScanLog,
    Unusable,
    count_ahead,
    read_list,
    resolve,
    scan,
)
from imgsearch.sources.globs import FileGlob
from imgsearch.sources.seen import SeenPaths

JPEG = b"\xff\xd8\xff\xe0 as far as the first bytes tell"

posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such files")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """An empty folder, by its real path."""
    folder = Path(os.path.realpath(tmp_path)) / "tree"
    folder.mkdir()
    return folder


def put(folder: Path, *names: str, content: bytes = JPEG) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def found(
    *names: str | Path, stdin: tuple[str | Path, ...] = (), log: ScanLog | None = None
) -> list[str]:
    """Return paths in the order in which they are found, unusable ones with the reason."""
    entries = scan(resolve([str(name) for name in names]), log or ScanLog(), map(str, stdin))
    return [
        entry.path if isinstance(entry, Candidate) else f"{entry.path}: {entry.reason}"
        for entry in entries
    ]


def below(tree: Path, *names: str) -> list[str]:
    return [str(tree / name) for name in names]


# Folders


def test_a_folder_is_walked_sorted_by_name_files_first(tree: Path) -> None:
    put(tree, "b/2.jpg", "b/1.png", "a/x/deep.webp", "z.gif")
    assert found(tree) == below(tree, "z.gif", "a/x/deep.webp", "b/1.png", "b/2.jpg")


def test_a_large_folder_is_sorted_in_parts(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"{number}.jpg" for number in range(20)]
    put(tree, *names, "b/1.png", "a/2.png")
    monkeypatch.setattr(sys.modules[scan.__module__], "_SORTED_ENTRIES", 6)
    order = found(tree)
    assert sorted(order[:20]) == sorted(below(tree, *names))
    assert order[20:] == below(tree, "a/2.png", "b/1.png")
    with os.scandir(tree) as listing:
        listed = [entry.name for entry in listing]
    parts = [sorted(listed[start : start + 6]) for start in range(0, len(listed), 6)]
    expected = [name for part in parts for name in part if name in names]
    assert order[:20] == below(tree, *expected)


def test_a_candidate_has_size_and_time_of_the_file(tree: Path) -> None:
    put(tree, "a.jpg")
    os.utime(tree / "a.jpg", ns=(0, 1_234_567_891_234_567_000))
    (entry,) = scan(resolve([str(tree)]), ScanLog())
    assert entry == Candidate(str(tree / "a.jpg"), len(JPEG), 1_234_567_891_234_567_000)
    assert entry.uri == (tree / "a.jpg").as_uri()


def test_images_are_detected_by_extension_or_content(tree: Path) -> None:
    put(tree, "no-extension", "wrong.txt", "SHOUTED.JPG", "sniffed.dat")
    put(tree, "half-written.jpg", "empty.jpeg", content=b"")
    put(tree, "notes.txt", "table.csv", "film.mp4", content=b"nothing to see")
    log = ScanLog()
    assert found(tree, log=log) == below(
        tree, "SHOUTED.JPG", "empty.jpeg", "half-written.jpg", "no-extension", "sniffed.dat",
        "wrong.txt",
    )  # fmt: skip
    assert log.other_files == 3


def test_hidden_and_system_entries_are_skipped_and_counted(tree: Path) -> None:
    put(
        tree, ".thumbnails/a.jpg", "._a.jpg", "@eaDir/b.jpg", "x/@EADIR/c.jpg", "$RECYCLE.BIN/d.jpg"
    )
    put(tree, "__MACOSX/e.jpg", "lost+found/f.jpg", "visible.jpg")
    log = ScanLog()
    assert found(tree, log=log) == below(tree, "visible.jpg")
    assert log.left_out == 7


def test_a_hidden_folder_named_explicitly_is_walked(tree: Path) -> None:
    put(tree, ".photos/a.jpg", ".photos/b/c.jpg")
    assert found(tree / ".photos") == below(tree, ".photos/a.jpg", ".photos/b/c.jpg")


def test_a_hidden_file_named_explicitly_is_found(tree: Path) -> None:
    put(tree, ".a.jpg", "b.jpg")
    both = set(below(tree, ".a.jpg", "b.jpg"))
    assert set(found(tree, tree / ".a.jpg")) == both
    assert set(found(tree / ".a.jpg", tree)) == both


def test_a_tilde_is_expanded_unless_a_file_has_that_name(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tree, "home/a.jpg", "here/~/b.jpg")
    monkeypatch.setenv("HOME", str(tree / "home"))
    monkeypatch.setenv("USERPROFILE", str(tree / "home"))
    assert found("~") == below(tree, "home/a.jpg")
    monkeypatch.chdir(tree / "here")
    assert found("~") == below(tree, "here/~/b.jpg")


def test_a_very_deep_folder_is_walked(tree: Path) -> None:
    deep = Path(tree, *["d"] * 300)
    put(deep, "a.jpg")
    assert found(tree) == [str(deep / "a.jpg")]


def test_unreadable_folders_are_reported_and_the_rest_is_found(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tree, "a/1.jpg", "locked/2.jpg", "z/3.jpg")
    real = os.scandir

    def fail(path: str) -> "os._ScandirIterator[str]":
        if os.path.basename(path) == "locked":
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", fail)
    log = ScanLog()
    assert found(tree, log=log) == below(tree, "a/1.jpg", "z/3.jpg")
    assert log.unreadable == [(str(tree / "locked"), "Permission denied")]
    with pytest.raises(SourceError, match="locked: cannot be read: Permission denied"):
        found(tree / "locked")


def test_a_file_that_cannot_be_opened_is_unusable_and_the_scan_continues(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tree, "secret", "open.jpg")

    def fail(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", fail)
    assert found(tree) == [str(tree / "open.jpg"), f"{tree / 'secret'}: Permission denied"]


def test_a_scan_can_be_stopped(tree: Path) -> None:
    put(tree, *(f"{number}.jpg" for number in range(9)), "z/more.jpg")
    seen: list[Candidate | Unusable] = []

    def enough() -> bool:
        return len(seen) >= 3

    for entry in scan(resolve([str(tree)]), ScanLog(), stopped=enough):
        seen.append(entry)  # noqa: PERF402
    assert len(seen) == 3


# Links


@posix
def test_link_loops_end_and_a_linked_folder_is_walked_once(tree: Path) -> None:
    put(tree, "a/1.jpg", "b/2.jpg")
    put(tree.parent / "elsewhere", "3.jpg")
    (tree / "a" / "up").symlink_to(tree)
    (tree / "b" / "self").symlink_to("self")
    (tree / "b" / "other").symlink_to(tree.parent / "elsewhere")
    (tree / "b" / "again").symlink_to(tree.parent / "elsewhere")
    everything = {*below(tree, "a/1.jpg", "b/2.jpg"), str(tree.parent / "elsewhere/3.jpg")}
    for sources in ([tree], [tree / "a" / "up"], [tree / "**"], [tree / "b", tree]):
        paths = found(*sources)
        assert set(paths) == everything
        assert len(paths) == 3


@posix
def test_a_recursive_glob_does_not_follow_link_loops(tree: Path) -> None:
    """Two links to their own folder make 2^40 paths of forty levels."""
    put(tree, "a/1.jpg")
    (tree / "a" / "x").symlink_to(".")
    (tree / "a" / "y").symlink_to(".")
    assert found(tree / "**" / "*.jpg") == below(tree, "a/1.jpg")


@posix
def test_a_link_to_a_file_is_a_separate_file(tree: Path) -> None:
    put(tree, "a.jpg")
    (tree / "b.jpg").symlink_to(tree / "a.jpg")
    assert found(tree) == below(tree, "a.jpg", "b.jpg")


@posix
def test_a_file_reached_through_a_linked_folder_is_the_same_file(tree: Path) -> None:
    put(tree, "real/a.jpg")
    (tree / "link").symlink_to(tree / "real")
    assert found(tree / "link" / "a.jpg", tree / "real") == below(tree, "real/a.jpg")


@posix
def test_a_dangling_link_with_an_image_extension_is_unusable(tree: Path) -> None:
    (tree / "a.jpg").symlink_to("gone")
    (tree / "self.jpg").symlink_to("self.jpg")
    (tree / "notes").symlink_to("gone")
    why = "a link to a file that is not there"
    assert found(tree) == [f"{tree / 'a.jpg'}: {why}", f"{tree / 'self.jpg'}: {why}"]
    assert found(tree / "notes") == [f"{tree / 'notes'}: {why}"]


# Other than regular files


@posix
def test_pipes_and_sockets_are_not_opened(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree)  # a socket's path must be short
    os.mkfifo("pipe.jpg")
    os.mkfifo("pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.jpg")
        log = ScanLog()
        assert found(tree, log=log) == []
        assert log.other_files == 3
        for name in ("pipe.jpg", "pipe", "socket.jpg"):
            assert found(tree / name) == [f"{tree / name}: not a regular file"]
            assert found(tree, stdin=(tree / name,)) == [f"{tree / name}: not a regular file"]


# Files and overlaps


def test_a_file_named_explicitly_is_found_whatever_its_type(tree: Path) -> None:
    """Decoding reports what is wrong with it; skipping it silently would hide that."""
    put(tree, "notes.txt", content=b"nothing to see")
    assert found(tree / "notes.txt") == below(tree, "notes.txt")
    assert found(tree, tree / "notes.txt") == below(tree, "notes.txt")


@pytest.mark.parametrize("backwards", [False, True])
def test_overlapping_sources_count_each_file_once(tree: Path, backwards: bool) -> None:
    put(tree, "a/1.jpg", "a/b/2.jpg", "a/b/plain", "3.jpg")
    sources = [tree, tree / "a", tree / "a" / "b" / ".." / "b", tree / "a" / "1.jpg",
               tree / "a" / "b" / "plain", tree / "*", tree / "**" / "*.jpg"]  # fmt: skip
    paths = found(*(reversed(sources) if backwards else sources), stdin=tuple(sources[:5]))
    assert sorted(paths) == sorted(below(tree, "a/1.jpg", "a/b/2.jpg", "a/b/plain", "3.jpg"))


@pytest.mark.parametrize("name", ["nowhere", "nowhere.jpg", ""])
def test_a_missing_source_is_an_error_before_the_scan(tree: Path, name: str) -> None:
    put(tree, "a.jpg")
    shown = name or "''"
    with pytest.raises(SourceError, match=f"{shown}: no such file or folder; nothing was done"):
        resolve([str(tree), name])


@posix
def test_names_of_any_bytes_are_found_and_have_a_uri(tree: Path) -> None:
    names = [
        b"caf\xe9.jpg",
        b"line\nbreak.jpg",
        "füße 鞋 👟.jpg".encode(),
        b"% #?.jpg",
        b"\xff\xfe.jpg",
    ]
    for name in names:
        with open(os.path.join(os.fsencode(tree), name), "wb") as file:
            file.write(JPEG)
    entries = list(scan(resolve([str(tree)]), ScanLog()))
    assert {os.fsencode(os.path.basename(entry.path)) for entry in entries} == set(names)
    assert all(entry.uri.isascii() and entry.uri.startswith("file:///") for entry in entries)
    assert len({entry.uri for entry in entries}) == len(names)


# Globs


def test_globs(tree: Path) -> None:
    put(tree, "a.jpg", "b.png", "x/c.jpg", "x/y/d.jpg", "shoes/e.jpg", "x/shoes/f.png")
    put(tree, "notes.txt", content=b"nothing to see")
    assert found(tree / "*.jpg") == below(tree, "a.jpg")
    assert found(tree / "[ab].???") == below(tree, "a.jpg", "b.png")
    assert set(found(tree / "**" / "*.jpg")) == set(
        below(tree, "a.jpg", "x/c.jpg", "x/y/d.jpg", "shoes/e.jpg")
    )
    assert found(tree / "**" / "x" / "**" / "*.jpg") == below(tree, "x/c.jpg", "x/y/d.jpg")
    # A folder that matches is walked; a file that is not an image is not rejected.
    assert found(tree / "**" / "shoes") == below(tree, "shoes/e.jpg", "x/shoes/f.png")
    for everything in ("*", "**", "**/*"):
        assert set(found(tree / everything)) == set(found(tree))


def test_a_glob_skips_what_a_walk_skips(tree: Path) -> None:
    put(tree, "a.jpg", ".hidden/b.jpg", "@eaDir/c.jpg", "x/@eaDir/d.jpg", "x/.e.jpg")
    for pattern in ("*", "**", "**/*", "**/*.jpg"):
        assert found(tree / pattern) == below(tree, "a.jpg")
    assert found(tree / "@eaDir" / "*.jpg") == below(tree, "@eaDir/c.jpg")
    assert found(tree / ".hid*" / "*") == below(tree, ".hidden/b.jpg")


def test_names_with_brackets_and_stars_are_literal_if_they_exist(tree: Path) -> None:
    put(tree, "[2019]/a.jpg", "[b].jpg", "b.jpg")
    assert found(tree / "[2019]") == below(tree, "[2019]/a.jpg")
    assert found(tree / "[2019]" / "*.jpg") == below(tree, "[2019]/a.jpg")
    assert found(tree / "[b].jpg") == below(tree, "[b].jpg")


@pytest.mark.parametrize("pattern", ["*.gif", "nowhere/*", "[x]", "**/*.gif"])
def test_a_glob_without_a_match_is_an_error(tree: Path, pattern: str) -> None:
    put(tree, "a.jpg")
    with pytest.raises(SourceError, match="nothing was done"):
        found(tree / pattern)


def test_the_matches_of_a_glob_are_found_folder_by_folder(tree: Path) -> None:
    put(tree, "b/2.jpg", "b/1.jpg", "a/x/3.jpg", "a/4.jpg", "5.jpg", "a/notes.txt")
    assert found(tree / "**" / "*.jpg") == below(
        tree, "5.jpg", "a/4.jpg", "a/x/3.jpg", "b/1.jpg", "b/2.jpg"
    )


def test_the_matches_of_a_glob_are_not_listed_ahead(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tree, *(f"{number}/a.jpg" for number in range(9)))
    sources = resolve([str(tree / "*" / "*.jpg")])
    listed: list[str] = []
    real = os.scandir

    def note(path: str) -> "os._ScandirIterator[str]":
        listed.append(path)
        return real(path)

    monkeypatch.setattr(os, "scandir", note)
    assert next(scan(sources, ScanLog())).path == str(tree / "0" / "a.jpg")
    assert listed == [str(tree), str(tree / "0")]


@pytest.mark.parametrize(
    "pattern",
    ["*", "*.jpg", "**/*.jpg", "*/*", "**/x/*", "x/**/*.jpg", "**/x/**/[ab].*", "*/x/?.jpg"],
)
def test_a_glob_finds_what_pathlib_finds_and_knows_each_match(tree: Path, pattern: str) -> None:
    put(tree, "a.jpg", "x/a.jpg", "x/x/b.jpg", "y/x/a.jpg", "y/z/x/b.png", "x/y/c.jpg", "jpg/a")
    glob = FileGlob(str(tree), tuple(pattern.split("/")))
    expected = sorted(map(str, tree.glob(pattern)))
    with_entries = [each.path for each in glob.walk(os.scandir)]
    assert sorted(with_entries) == expected
    everything = map(str, tree.rglob("*"))
    assert sorted(path for path in everything if glob.matches(path)) == expected


@posix
def test_a_file_that_a_glob_reaches_through_links_is_found_once(tree: Path) -> None:
    put(tree, "a/1.jpg", "z/2.jpg")
    put(tree.parent / "elsewhere", "3.jpg", "b/4.jpg")
    (tree / "first").symlink_to(tree.parent / "elsewhere")
    (tree / "second").symlink_to(tree.parent / "elsewhere")
    (tree / "b").symlink_to(tree / "z")
    (tree / "up").symlink_to(tree)
    linked = str(tree.parent / "elsewhere/3.jpg")
    assert sorted(found(tree / "*" / "*.jpg")) == sorted(
        [*below(tree, "a/1.jpg", "z/2.jpg"), linked]
    )
    assert found(tree / "first" / ".." / "elsewhere" / "*.jpg") == [linked]


def test_files_that_a_glob_has_found_are_not_found_again(tree: Path) -> None:
    put(tree, "a/1.jpg", "a/2.png", "b/3.jpg", "b/note.jpg.txt")
    globs = [tree / "*" / "*.jpg", tree / "**" / "[12].*", tree / "b" / "*.txt"]
    again = tuple(below(tree, "a/1.jpg", "b", "a", "a/1.jpg", "b/note.jpg.txt"))
    put(tree, "b/note.jpg.txt", content=b"no image")
    assert found(*globs, "-", stdin=again) == below(
        tree, "a/1.jpg", "b/3.jpg", "a/2.png", "b/note.jpg.txt"
    )


def test_relative_globs_and_names(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tree, "a.jpg", "x/b.jpg")
    monkeypatch.chdir(tree)
    for name in (".", "*", "**", "./*", "x/../*"):
        assert sorted(found(name)) == below(tree, "a.jpg", "x/b.jpg"), name
    assert found("**/b.*") == below(tree, "x/b.jpg")


# Lists


def test_a_long_list_is_remembered_on_disk(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules[SeenPaths.__module__]
    monkeypatch.setattr(module, "_IN_MEMORY", 2)
    names = [f"{number}.jpg" for number in range(6)]
    put(tree, *names)
    listed = tuple(below(tree, *names, *names[::-1]))
    assert found("-", stdin=listed) == below(tree, *names)
    monkeypatch.setattr(module, "_temporary_table", lambda: sqlite3.connect(":memory:"))
    with pytest.raises(SourceError, match="long list cannot be kept"):
        found("-", stdin=listed)


def test_the_output_of_find_is_walked_once(tree: Path) -> None:
    """`find .` lists the folders as well as the files in them."""
    put(tree, "a.jpg", "x/b.jpg", "x/y/c.jpg")
    listed = [path for folder, _, files in os.walk(tree)
              for path in [folder, *(os.path.join(folder, file) for file in files)]]  # fmt: skip
    for lines in (listed, listed[::-1]):
        paths = found("-", stdin=tuple(lines))
        assert sorted(paths) == sorted(below(tree, "a.jpg", "x/b.jpg", "x/y/c.jpg"))


def test_a_listed_file_that_does_not_exist_is_unusable(tree: Path) -> None:
    put(tree, "a.jpg")
    for gone in ("gone.jpg", "gone", "nowhere/gone.jpg"):
        paths = found("-", stdin=(tree, tree / gone))
        assert paths == [str(tree / "a.jpg"), f"{tree / gone}: No such file or directory"]
    (too_long,) = found("-", stdin=("x" * 5000,))
    assert "too long" in too_long


@pytest.mark.parametrize(
    ("data", "names"),
    [
        (b"a\nb\n", ["a", "b"]),
        (b"a\nb", ["a", "b"]),
        (b"a\r\nb\r\n", ["a", "b"]),
        (b"\n\na\n\n", ["a"]),
        (b"a b \n", ["a b "]),
        (b"a\0b\0", ["a", "b"]),
        (b"a\nb\0c", ["a\nb", "c"]),
        (b"a\r\0", ["a\r"]),
        ("füße\n".encode(), ["füße"]),
        (b"caf\xe9\n", [os.fsdecode(b"caf\xe9")]),
        (b"", []),
    ],
)
def test_a_list_is_separated_by_newlines_or_nul(data: bytes, names: list[str]) -> None:
    assert list(read_list(io.BytesIO(data))) == names


file_names = st.binary(min_size=1, max_size=12).filter(lambda name: b"\0" not in name)


@given(st.lists(file_names, min_size=1), st.integers(1, 40))
def test_any_name_survives_a_list_separated_by_nul(names: list[bytes], chunk: int) -> None:
    data = b"".join(name + b"\0" for name in names)
    # The first chunk decides about the separator: by default it has 64 KiB.
    read = read_list(io.BytesIO(data), chunk_size=max(chunk, len(names[0]) + 1))
    assert [os.fsencode(name) for name in read] == names


@given(st.binary(), st.integers(1, 40))
def test_a_list_of_any_bytes_yields_valid_names(data: bytes, chunk: int) -> None:
    names = list(read_list(io.BytesIO(data), chunk))
    assert all(name and "\0" not in name for name in names)
    if b"\0" not in data:
        lines = data.split(b"\n")
        assert [os.fsencode(name) for name in names] == [
            line.removesuffix(b"\r") for line in lines if line.removesuffix(b"\r")
        ]


def test_garbage_on_stdin_yields_files_that_do_not_exist(tree: Path) -> None:
    """Such as an image that is piped instead of a list."""
    rubbish = bytes(range(256)) * 20
    lines: Iterator[str] = read_list(io.BytesIO(rubbish.replace(b"\0", b"") + b"\n\0"), 100)
    entries = list(scan(resolve(["-"]), ScanLog(), lines))
    assert entries
    assert all(isinstance(entry, Unusable) for entry in entries)


@pytest.mark.parametrize(("limit", "counted"), [(None, 4), (3, 2)])
def test_a_count_ahead_walks_no_further_than_the_limit(
    tree: Path, monkeypatch: pytest.MonkeyPatch, limit: int | None, counted: int
) -> None:
    put(tree, *(f"{number}.jpg" for number in range(5)))
    walked: list[str] = []

    def scan_and_note(*arguments: Any, **options: Any) -> Iterator[Candidate | Unusable]:
        for each in scan(*arguments, **options):
            walked.append(each.path)
            yield each

    monkeypatch.setattr("imgsearch.sources.counting.scan", scan_and_note)
    events: list[Event] = []
    skip = str(tree / "0.jpg")
    count_ahead(resolve([str(tree)]), events.append, lambda: False, limit=limit, skip=skip.__eq__)
    for thread in threading.enumerate():
        if thread.name == "imgsearch-count":
            thread.join()
    assert events == [Counted(counted)]
    assert len(walked) == (limit or 5)
