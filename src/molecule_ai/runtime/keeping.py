"""What an agent must not forget: conversations, and tasks that somebody may still ask for.

One SQLite file in the config directory. A write has reached the operating system when it returns,
so that killing the agent loses nothing.
"""

import logging
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from msgspec import Struct

from molecule_ai.runtime.messages import Turn

log = logging.getLogger(__name__)

FILE = ".agent.db"
KEPT_CONTEXTS = 200
KEPT_TURNS = 40  # of one context
KEPT_CHARACTERS = 200_000  # of one context, about 50,000 tokens
KEPT_TASKS = 200

SCHEMA = """
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = NORMAL;
    PRAGMA foreign_keys = ON;
    CREATE TABLE IF NOT EXISTS contexts (
        id TEXT PRIMARY KEY, used INTEGER NOT NULL DEFAULT 0, session_id TEXT NOT NULL DEFAULT '');
    CREATE INDEX IF NOT EXISTS contexts_by_use ON contexts (used);
    CREATE TABLE IF NOT EXISTS turns (
        id INTEGER PRIMARY KEY, role TEXT NOT NULL, text TEXT NOT NULL,
        context_id TEXT NOT NULL REFERENCES contexts (id) ON DELETE CASCADE);
    CREATE INDEX IF NOT EXISTS turns_by_context ON turns (context_id, id);
    CREATE TABLE IF NOT EXISTS tasks (
        id TEXT PRIMARY KEY, owner TEXT NOT NULL, saved INTEGER NOT NULL, body TEXT NOT NULL);
    CREATE INDEX IF NOT EXISTS tasks_by_age ON tasks (saved);
    CREATE TABLE IF NOT EXISTS daily (
        name TEXT PRIMARY KEY, day TEXT NOT NULL, count INTEGER NOT NULL);
"""
USE = """
    INSERT INTO contexts (id, used) VALUES (?, (SELECT coalesce(max(used), 0) + 1 FROM contexts))
    ON CONFLICT (id) DO UPDATE SET used = excluded.used"""
FORGET_CONTEXTS = """
    DELETE FROM contexts
     WHERE used <= (SELECT used FROM contexts ORDER BY used DESC LIMIT 1 OFFSET ?)"""
FORGET_TURNS = """
    DELETE FROM turns
     WHERE context_id = ?1
       AND id <= (SELECT id FROM turns WHERE context_id = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)"""
SAVE_TASK = """
    INSERT INTO tasks (id, owner, saved, body)
    VALUES (?, ?, (SELECT coalesce(max(saved), 0) + 1 FROM tasks), ?)
    ON CONFLICT (id) DO UPDATE SET saved = excluded.saved, body = excluded.body"""
COUNT = """
    INSERT INTO daily (name, day, count) VALUES (?, ?, 1)
    ON CONFLICT (name) DO UPDATE
        SET count = CASE WHEN day = excluded.day THEN count + 1 ELSE 1 END, day = excluded.day
    RETURNING count"""
FORGET_TASKS = """
    DELETE FROM tasks WHERE saved <= (SELECT saved FROM tasks ORDER BY saved DESC LIMIT 1 OFFSET ?)"""


class KeptTask(Struct, frozen=True):
    """A task as JSON, and whose it is."""

    id: str
    owner: str
    body: str


class Keeping:
    """Opened with its first use. A file that cannot be used is replaced by memory, with a warning."""

    def __init__(self, directory: Path | None, redact: Callable[[str], str]) -> None:
        self._path = directory / FILE if directory else None
        self._redact = redact
        self._connection: sqlite3.Connection | None = None

    def close(self) -> None:
        """Close the file."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def turns(self, context_id: str) -> tuple[Turn, ...]:
        """Return what was said in a context, oldest first."""
        latest = self._open().execute(
            "SELECT role, text FROM turns WHERE context_id = ? ORDER BY id DESC LIMIT ?",
            (context_id, KEPT_TURNS),
        )
        return tuple(reversed(list(_recent(Turn(role, text) for role, text in latest))))

    def say(self, context_id: str, question: str, answer: str) -> None:
        """Add an exchange, without the secrets in it."""
        said = (
            (role, self._redact(text), context_id) for role, text in (("user", question), ("agent", answer))
        )
        with self._open() as database:
            database.execute(USE, (context_id,))
            database.executemany("INSERT INTO turns (role, text, context_id) VALUES (?, ?, ?)", said)
            database.execute(FORGET_TURNS, (context_id, KEPT_TURNS))
            database.execute(FORGET_CONTEXTS, (KEPT_CONTEXTS,))

    def session(self, context_id: str) -> str:
        """Return the name under which the runtime itself knows a context, or nothing."""
        row = self._open().execute("SELECT session_id FROM contexts WHERE id = ?", (context_id,)).fetchone()
        return row[0] if row else ""

    def keep_session(self, context_id: str, session_id: str) -> None:
        """Keep that name."""
        with self._open() as database:
            database.execute(USE, (context_id,))
            database.execute("UPDATE contexts SET session_id = ? WHERE id = ?", (session_id, context_id))

    def count(self, name: str, day: str) -> int:
        """Count one more of something on a day, and return how many there were, this one included."""
        with self._open() as database:
            [row] = database.execute(COUNT, (name, day)).fetchall()
        return int(row[0])

    def tasks(self) -> list[KeptTask]:
        """Return the kept tasks, the longest untouched first."""
        rows = self._open().execute("SELECT id, owner, body FROM tasks ORDER BY saved")
        return [KeptTask(*row) for row in rows]

    def keep_task(self, task: KeptTask) -> None:
        """Keep the latest state of a task, and drop those that nobody has touched for longest."""
        with self._open() as database:
            database.execute(SAVE_TASK, (task.id, task.owner, task.body))
            database.execute(FORGET_TASKS, (KEPT_TASKS,))

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            try:
                self._connection = _connect(self._path)
            except (sqlite3.Error, OSError) as error:
                log.warning("keeping_in_memory path=%s error=%s", self._path, error)
                self._connection = _connect(None)
        return self._connection


def _connect(path: Path | None) -> sqlite3.Connection:
    if path is not None:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))  # for its owner only, from the start
    database = sqlite3.connect(path or ":memory:")
    try:
        database.executescript(SCHEMA)
    except sqlite3.Error:
        database.close()
        raise
    return database


def _recent(turns: Iterable[Turn]) -> Iterator[Turn]:
    """Yield turns, latest first, up to the longest conversation that is worth its tokens."""
    left = KEPT_CHARACTERS
    for turn in turns:
        left -= len(turn.text)
        if left < 0:
            return
        yield turn
