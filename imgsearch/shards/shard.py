"""A shard and the index of its members."""

import hashlib
import json
import os
import secrets
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from imgsearch import config
from imgsearch.shards import access, sidecars, tars, zips
from imgsearch.shards.access import State
from imgsearch.shards.base import Described, Member, ShardError
from imgsearch.types import FieldType, Metadata
from imgsearch.uris import MemberUrl

if TYPE_CHECKING:
    from imgsearch.shards.parquet import Rows

_FORMAT = 1
MAX_FIELDS = 256
"""Further fields of a shard are left out: its JSON has keys that are values, such as ids."""
_MAX_INDEXES_BYTES = 4 << 30
_COLUMNS = "name, offset, length, size, method, head, crc, problem, fields"
SUPERSEDED = "a later member of the shard has the same name, and counts"


class Shard:
    """One version of a shard, with the index of its members. Threads may use it at once.

    `problem` says what is wrong behind its last member, if it is cut off or damaged. `types` are
    those of all fields that it has, and `remarks` sentences on what was not understood.
    """

    def __init__(self, uri: str, state: State, database: sqlite3.Connection) -> None:
        self._database = database
        self._parquet: Rows | None = None
        self.uri = uri
        self.state = state
        self._lock = threading.Lock()
        stored = dict(database.execute("SELECT key, value FROM about"))
        self.problem: str = stored["problem"]
        self.types: Mapping[str, FieldType] = json.loads(stored["types"])
        self.remarks: list[str] = json.loads(stored["remarks"])

    @property
    def id(self) -> str:
        """What owns the fields of its images, as the id of a table does."""
        return hashlib.blake2b(self.uri.encode(), digest_size=4).hexdigest()

    def members(self) -> Iterator[Member]:
        """Yield the members in their order, some rows in memory."""
        last = 0
        while rows := self._rows(
            f"SELECT id, {_COLUMNS} FROM member WHERE id > ? ORDER BY id LIMIT 512",  # noqa: S608
            last,
        ):
            for number, *row in rows:
                last = number
                member = _from_row(row)
                yield member if member.problem else self._described(member)

    def _described(self, member: Member) -> Member:
        fields: dict[str, Any] = dict(member.fields)
        for stem in sidecars.stems_of(member.name):
            for (found,) in self._rows("SELECT fields FROM described WHERE stem = ?", _key(stem)):
                fields |= json.loads(found)
        return member if fields == member.fields else _with_fields(member, fields)

    def member(self, name: str) -> Member:
        """Return the last member of a name. Raises FileNotFoundError."""
        rows = self._rows(
            f"SELECT {_COLUMNS} FROM member WHERE name = ? ORDER BY id DESC LIMIT 1",  # noqa: S608
            _key(name),
        )
        if not rows:
            raise FileNotFoundError(2, "no such member in the shard")
        return _from_row(rows[0])

    def read(self, member: Member) -> Iterator[bytes]:
        """Yield the content of a member. Raises ShardError, ShardChangedError and OSError."""
        if member.problem:
            raise ShardError(member.problem)

        def read(start: int, length: int) -> Iterator[bytes]:
            length = max(0, min(length, self.state.size - start))
            return access.read(self.uri, self.state, start, length)

        if member.method == "row":
            return iter((self._images().content(member.offset),))
        if member.method == "plain":
            if member.offset + member.length > self.state.size:
                raise ShardError("the shard is cut off within the member")
            return read(member.offset, member.length)
        return zips.unpack(member, read)

    def _images(self) -> "Rows":
        from imgsearch.shards.parquet import Rows

        with self._lock:
            if self._parquet is None:
                self._parquet = Rows(cast(BinaryIO, _reader(self.uri, self.state)))
            return self._parquet

    def version_of(self, member: Member) -> tuple[int, int]:
        """Return size and `mtime_ns` as a record of the member has them."""
        return member.size, self.state.mark

    def _rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._database.execute(query, values).fetchall()

    def __del__(self) -> None:
        self._database.close()
        if self._parquet is not None:
            self._parquet.close()


def indexed(uri: str, state: State) -> Shard:
    """Return a shard with its index, which is made if there is none of this version.

    Raises OSError; of a shard that is cut off or damaged, what is before that is in the index.
    """
    folder = _folder()
    path = folder / f"{_digest(uri, state)}.sqlite"
    try:
        os.utime(path)  # when it was last used
        return Shard(uri, state, _opened(path))
    except (OSError, sqlite3.Error, KeyError, ValueError):
        pass
    part = path.with_suffix(f".part-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        _write(part, uri, state)
        os.replace(part, path)
        _remove_oldest(folder, path)
        return Shard(uri, state, _opened(path))
    except sqlite3.Error as error:
        raise ShardError(f"{path}: the index of the shard cannot be stored: {error}") from error
    finally:
        part.unlink(missing_ok=True)


def _digest(uri: str, state: State) -> str:
    version = [_FORMAT, uri, state.size, state.mtime_ns, state.info.etag if state.info else None]
    return hashlib.blake2b(json.dumps(version).encode(), digest_size=16).hexdigest()


def _folder() -> Path:
    """Return the folder of all indexes; a temporary one where nothing can be written at home."""
    folder = config.home() / "shards"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except OSError:
        pass
    return _temporary()


def _temporary() -> Path:
    global _fallback
    if _fallback is None:
        _fallback = tempfile.TemporaryDirectory(prefix="imgsearch-shards-")
    return Path(_fallback.name)


_fallback: tempfile.TemporaryDirectory[str] | None = None


def _opened(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, check_same_thread=False)


def _remove_oldest(folder: Path, newest: Path) -> None:
    """Remove the indexes that were not used for longest, if all together are too large."""
    found = []
    for path in folder.glob("*.sqlite"):
        try:
            status = path.stat()
        except OSError:
            continue
        found.append((status.st_mtime, status.st_size, path))
    total = sum(size for _, size, _ in found)
    for _, size, path in sorted(found):
        if total <= _MAX_INDEXES_BYTES:
            return
        if path != newest:
            path.unlink(missing_ok=True)
            total -= size


def _write(path: Path, uri: str, state: State) -> None:
    database = sqlite3.connect(path, isolation_level=None)
    try:
        database.execute("PRAGMA journal_mode = OFF")
        database.execute("PRAGMA synchronous = OFF")
        database.execute(
            "CREATE TABLE member (id INTEGER PRIMARY KEY, name TEXT, offset INT, length INT, "
            "size INT, method TEXT, head INT, crc INT, problem TEXT, fields TEXT)"
        )
        database.execute("CREATE TABLE described (stem TEXT PRIMARY KEY, fields TEXT)")
        database.execute("CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT)")
        database.execute("BEGIN")
        builder, problem = _Builder(database), ""
        with _reader(uri, state) as file:
            try:
                builder.add(_members(uri, cast(BinaryIO, file), builder.remarks.append))
            except ShardError as error:
                if file.failure:
                    raise file.failure from error
                problem = error.strerror or str(error)
        if access.state_of(uri) != state:
            raise ShardError("the shard changed while it was read; the next run reads it again")
        about = {
            "problem": problem,
            "types": json.dumps(builder.types),
            "remarks": json.dumps(builder.all_remarks()),
        }
        database.executemany("INSERT INTO about VALUES (?, ?)", about.items())
        database.execute("CREATE INDEX by_name ON member (name)")
        database.execute(
            "UPDATE member SET problem = ? WHERE problem = '' AND EXISTS (SELECT 1 FROM member "
            "AS later WHERE later.name = member.name AND later.id > member.id)",
            (SUPERSEDED,),
        )
        database.execute("COMMIT")
    finally:
        database.close()


def _reader(uri: str, state: State) -> access.Reader:
    most = tars.MAX_HEADER if _kind(uri) == "tar" else zips.MAX_DIRECTORY
    return access.open_reader(uri, state, most)


def _members(
    uri: str, file: BinaryIO, remark: Callable[[str], None]
) -> Iterator[Member | Described]:
    if _kind(uri) == "parquet":
        from imgsearch.shards import parquet

        return parquet.members(file, remark)
    return zips.members(file) if _kind(uri) == "zip" else tars.members(file)


def _kind(uri: str) -> str:
    return uri.rpartition(".")[2].lower()


class _Builder:
    """Fills the index of a shard."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        self.types: dict[str, FieldType] = {}
        self.remarks: list[str] = []
        self._too_many = False
        self._unread = 0
        self._example = ""

    def add(self, members: Iterable[Member | Described]) -> None:
        for each in members:
            if isinstance(each, Member):
                self._database.execute(
                    f"INSERT INTO member ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
                    _to_row(each),
                )
                self._add_types(each.fields)
            elif (fields := sidecars.fields_of(each.name, each.text)) is None:
                self._unread += 1
                self._example = self._example or each.name
            else:
                self._describe(sidecars.stem_of(each.name), fields)
                self._add_types(fields)

    def _describe(self, stem: str, fields: Metadata) -> None:
        for (known,) in self._database.execute(
            "SELECT fields FROM described WHERE stem = ?", (_key(stem),)
        ).fetchall():
            fields = {**json.loads(known), **fields}
        self._database.execute(
            "INSERT OR REPLACE INTO described VALUES (?, ?)", (_key(stem), json.dumps(fields))
        )

    def _add_types(self, fields: Metadata) -> None:
        for name, value in fields.items():
            if name not in self.types and len(self.types) == MAX_FIELDS:
                if not self._too_many:
                    self.remarks.append(f"more than {MAX_FIELDS} fields: {name!r} is left out")
                self._too_many = True
                continue
            mine = sidecars.type_of(value)
            self.types[name] = sidecars.common_type(self.types.get(name, mine), mine)

    def all_remarks(self) -> list[str]:
        if not self._unread:
            return self.remarks
        what = f"{self._unread:,} .json or .txt members are no JSON objects or texts in UTF-8"
        return [*self.remarks, f"{what}, such as {self._example!r}: they describe no image"]


def _key(name: str) -> str:
    """Return a name as SQLite can store it, even one that is not UTF-8."""
    return str(MemberUrl("", name))


def _name(key: str) -> str:
    member = MemberUrl.parse(f"file:///x.tar{key}")
    return member.name if member else ""


def _to_row(member: Member) -> tuple[Any, ...]:
    return (
        _key(member.name),
        member.offset,
        member.length,
        member.size,
        member.method,
        member.head,
        member.crc,
        member.problem,
        json.dumps(dict(member.fields)) if member.fields else None,
    )


def _from_row(row: Iterable[Any]) -> Member:
    name, offset, length, size, method, head, crc, problem, fields = row
    return Member(
        _name(name),
        offset,
        length,
        size,
        method,
        head,
        crc,
        problem,
        cast(Metadata, json.loads(fields) if fields else {}),
    )


def _with_fields(member: Member, fields: Metadata) -> Member:
    return replace(member, fields=fields)
