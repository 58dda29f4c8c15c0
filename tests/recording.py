"""What do SQLite, and code that writes files by itself, do to a disk? Written down for power_cut.py.

SQLite is recorded by a VFS of APSW, under a connection that looks like one of the module `sqlite3`, as far as the
outbox needs it, so that the code under test is the one that runs on devices. The index of the log (`-shm`) is no part
of it: after a power cut there is none. Other code is given what stands for `open` and `os`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import apsw
from power_cut import Disk, Flush, Resize, Write

FLUSHES_FOLDER = apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_MAIN_JOURNAL
"""SQLite's own VFS flushes the folder with the first flush of such a file, if it made it."""


# --- code that writes files by itself ---------------------------------------------------------------------------------


class Files:
    """Stands for `open`, `os` and `Path.replace` of a module: the files are made, and written down."""

    O_RDONLY = os.O_RDONLY

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._open: dict[int, int] = {}  # descriptor -> file, 0: the folder

    def builtin_open(self, path: Path, mode: str, opener: Callable[[str, int], int]) -> _WrittenFile:
        """Of `open`, to write a whole file; `opener` opens it by our `open`."""
        assert mode == "wb"
        file, _ = self._disk.opened(path.name)
        self._disk.events.append(Resize(file, 0))
        real = open(path, "wb", opener=opener)  # noqa: SIM115 - closed by whoever asked for it
        written = _WrittenFile(real, file, self._disk)
        self._open[written.fileno()] = file
        return written

    def open(self, path: Path | str, flags: int, mode: int = 0o777) -> int:
        """Of `os`; taken to be for the folder, to flush it, unless `builtin_open` asked."""
        descriptor = os.open(path, flags, mode)
        self._open[descriptor] = 0
        return descriptor

    def fsync(self, descriptor: int) -> None:
        os.fsync(descriptor)
        self._disk.events.append(Flush(self._open[descriptor]))

    def close(self, descriptor: int) -> None:
        os.close(descriptor)

    def replace(self, path: Path, target: Path) -> None:
        """Of `Path`, whose method it has to be."""
        path.rename(target)
        self._disk.renamed(path.name, target.name)


class _WrittenFile:
    def __init__(self, real: IO[bytes], file: int, disk: Disk) -> None:
        self._real, self._file, self._disk = real, file, disk

    def write(self, data: bytes) -> None:
        self._disk.events.append(Write(self._file, self._real.tell(), data))
        self._real.write(data)

    def flush(self) -> None:
        self._real.flush()

    def fileno(self) -> int:
        return self._real.fileno()

    def __enter__(self) -> _WrittenFile:
        return self

    def __exit__(self, *_error: object) -> None:
        self._real.close()


# --- SQLite on such a disk --------------------------------------------------------------------------------------------


class RecordingVfs(apsw.VFS):
    """SQLite's own VFS for Unix, which also writes down what it does to files. Keep it while connections are open."""

    def __init__(self, disk: Disk) -> None:
        self.name = f"recording-{id(disk)}"
        self._disk = disk
        super().__init__(self.name, base="unix")

    def xOpen(self, name: Any, flags: list[int]) -> _RecordedFile:  # noqa: N802 - APSW's name
        return _RecordedFile(name, flags, self._disk)

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802
        super().xDelete(filename, syncdir)
        self._disk.deleted(Path(filename).name)
        if syncdir:
            self._disk.events.append(Flush(0))


class _RecordedFile(apsw.VFSFile):
    def __init__(self, name: Any, flags: list[int], disk: Disk) -> None:
        super().__init__("unix", name, flags)
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        self._disk = disk
        self._file, new = disk.opened(Path(path).name)
        self._flushes_folder = new and bool(flags[0] & FLUSHES_FOLDER)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        super().xWrite(data, offset)
        self._disk.events.append(Write(self._file, offset, bytes(data)))

    def xTruncate(self, newsize: int) -> None:  # noqa: N802
        super().xTruncate(newsize)
        self._disk.events.append(Resize(self._file, newsize))

    def xSync(self, flags: int) -> None:  # noqa: N802
        super().xSync(flags)
        self._disk.events.append(Flush(self._file))
        if self._flushes_folder:
            self._disk.events.append(Flush(0))
            self._flushes_folder = False


class Connection:
    """Of APSW, with the words of `sqlite3` that the outbox and sqlite-utils use."""

    def __init__(self, path: Path, vfs: RecordingVfs, *, synchronous: str = "FULL") -> None:
        """`synchronous` is in force whatever the code under test asks for: to see whether a test can fail."""
        self._db = apsw.Connection(str(path), vfs=vfs.name)
        self._db.execute("PRAGMA locking_mode = EXCLUSIVE")  # the log's index in memory: such a VFS cannot share one
        self._synchronous = synchronous

    def execute(self, sql: str, values: Any = ()) -> _Cursor:
        if sql.startswith("PRAGMA synchronous"):
            sql = f"PRAGMA synchronous = {self._synchronous}"
        before = self._db.total_changes()
        cursor = self._db.execute(sql, values)
        return _Cursor(cursor, self._db.total_changes() - before)

    def executemany(self, sql: str, values: Any) -> None:
        self._db.executemany(sql, list(values))

    @property
    def in_transaction(self) -> bool:
        return self._db.in_transaction

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> Connection:  # of `sqlite3`, it commits; in autocommit mode there is nothing to commit
        return self

    def __exit__(self, *_error: object) -> None:
        return None


class _Cursor:
    def __init__(self, cursor: apsw.Cursor, rowcount: int) -> None:
        self._cursor = cursor
        self.rowcount = rowcount

    def fetchone(self) -> Any:
        return self._cursor.fetchone()

    def fetchall(self) -> list[Any]:
        return self._cursor.fetchall()

    def __iter__(self) -> Iterator[Any]:
        return iter(self._cursor)

    def close(self) -> None:
        self._cursor.close()
