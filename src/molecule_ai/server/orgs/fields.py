"""Typed reading of one mapping of the document; what does not fit becomes a problem, not an exception."""

import re
from collections.abc import Iterable, Iterator
from typing import TypeGuard

from .limits import MAX_PROBLEMS
from .problems import InvalidOrg, Kind, Place, Problem
from .tree import BOOL_TAG, FLOAT_TAG, INT_TAG, NULL_TAG, Mapping, Scalar, Sequence, Value

TRUE_WORDS = {"true", "yes", "on"}
DECIMAL = re.compile(r"[-+]?(0|[1-9]\d{0,11})")
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
CONTROL_OR_BREAK = re.compile(r"[\x00-\x1f\x7f]")


class Findings:
    """What one reading of a document turned up.

    A strict reading refuses what a lenient one leaves out with a warning: a schedule that cannot
    fire, a prompt file that is missing (contract 06 §3.7).
    """

    def __init__(self, is_strict: bool) -> None:
        self.is_strict = is_strict
        self.problems: list[Problem] = []
        self.warnings: list[str] = []

    def add(self, problem: Problem) -> None:
        """Note a problem. Raises `InvalidOrg` at once when there are too many to read."""
        self.problems.append(problem)
        if len(self.problems) >= MAX_PROBLEMS:
            raise InvalidOrg(self.problems)


class Fields:
    """The keys of one mapping, each read at most once under its own type."""

    def __init__(self, mapping: Mapping, findings: Findings, path: str = "", role: str = "") -> None:
        self.place = mapping.place
        self.path = path
        self.role = role
        self.findings = findings
        self._entries = mapping.entries
        self._used: set[str] = set()

    def has(self, key: str) -> bool:
        """Whether the key is there with a value."""
        return self._find(key) is not None

    def is_blank(self, key: str) -> bool:
        """Whether the key is absent, null, or text of nothing but space."""
        value = self._find(key)
        return value is None or (isinstance(value, Scalar) and not value.text.strip())

    def value(self, key: str) -> Value | None:
        """The raw value; None also for an explicit null."""
        self._used.add(key)
        return self._find(key)

    def at(self, key: str) -> str:
        """The path of a key, for messages."""
        return f"{self.path}.{key}" if self.path else key

    def problem(self, message: str, key: str = "", place: Place | None = None) -> None:
        """Note what is wrong, here or at one key."""
        self.findings.add(self._describe(message, key, place, Kind.CONTENT))

    def leave_out(self, message: str, key: str = "", place: Place | None = None) -> None:
        """Note that one part cannot be used, while the rest can."""
        if self.findings.is_strict:
            self.findings.add(self._describe(message, key, place, Kind.ITEM))
        else:
            self.warn(message, key, place)

    def warn(self, message: str, key: str = "", place: Place | None = None) -> None:
        """Note what the author should know and the import can live with."""
        self.findings.warnings.append(str(self._describe(message, key, place, Kind.ITEM)))

    def text(self, key: str, *, max_characters: int | None = None, one_line: bool = False) -> str | None:
        """A plain value as its author wrote it."""
        value = self.value(key)
        if value is None:
            return None
        if not isinstance(value, Scalar):
            self.problem(f"{key} must be text", key, value.place)
            return None
        if (CONTROL_OR_BREAK if one_line else CONTROL).search(value.text):
            what = "line breaks or control characters" if one_line else "control characters"
            self.problem(f"{key} must not contain {what}", key, value.place)
            return None
        if max_characters is not None and len(value.text) > max_characters:
            self.problem(f"{key} must be at most {max_characters} characters", key, value.place)
            return None
        return value.text

    def integer(self, key: str, *, low: int, high: int) -> int | None:
        """A whole number between two bounds, both allowed."""
        value = self.value(key)
        if value is None:
            return None
        number = _decimal(value)
        if number is None or not low <= number <= high:
            self.problem(f"{key} must be a whole number from {low} to {high}", key, value.place)
            return None
        return number

    def number(self, key: str) -> float | None:
        """A finite number."""
        value = self.value(key)
        if value is None:
            return None
        if isinstance(value, Scalar) and value.tag in (INT_TAG, FLOAT_TAG):
            try:
                number = float(value.text)
            except ValueError:
                number = float("nan")
            if abs(number) <= 1e9:
                return number
        self.problem(f"{key} must be a number", key, value.place)
        return None

    def flag(self, key: str, default: bool) -> bool:
        """True or false."""
        value = self.value(key)
        if value is None:
            return default
        if isinstance(value, Scalar) and value.tag == BOOL_TAG:
            return value.text.lower() in TRUE_WORDS
        self.problem(f"{key} must be true or false", key, value.place)
        return default

    def items(self, key: str) -> list[Value]:
        """The entries of a list."""
        value = self.value(key)
        if value is None:
            return []
        if not isinstance(value, Sequence):
            self.problem(f"{key} must be a list", key, value.place)
            return []
        return value.items

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of plain values."""
        return self._texts(key, self.items(key), key)

    def texts_map(self, key: str) -> dict[str, tuple[str, ...]]:
        """A mapping of lists of plain values; a null is an empty list."""
        found: dict[str, tuple[str, ...]] = {}
        for name, value in self.entries(key):
            if isinstance(value, Sequence):
                found[name] = self._texts(f"{key}.{name}", value.items, key)
            elif isinstance(value, Scalar) and value.tag == NULL_TAG:
                found[name] = ()
            else:
                self.problem(f"{key}.{name} must be a list", key, value.place)
        return found

    def text_map(self, key: str) -> dict[str, str]:
        """A mapping of plain values; a null is an empty text."""
        found: dict[str, str] = {}
        for name, value in self.entries(key):
            if isinstance(value, Scalar):
                found[name] = value.text
            else:
                self.problem(f"{key}.{name} must be text", key, value.place)
        return found

    def entries(self, key: str) -> Iterator[tuple[str, Value]]:
        """The pairs of a mapping."""
        value = self.value(key)
        if value is None:
            return
        if not isinstance(value, Mapping):
            self.problem(f"{key} must be a mapping", key, value.place)
            return
        for name, (_, entry) in value.entries.items():
            yield name, entry

    def mappings(self, key: str, at_most: int | None = None) -> Iterator["Fields"]:
        """The entries of a list of mappings."""
        items = self.items(key)
        if at_most is not None and len(items) > at_most:
            self.problem(f"{key} must have at most {at_most} entries", key)
            return
        for index, item in enumerate(items):
            if isinstance(item, Mapping):
                yield Fields(item, self.findings, f"{self.at(key)}[{index}]", self.role)
            else:
                self.problem(f"{key}[{index}] must be a mapping", key, item.place)

    def warn_of_unknown(self, ignored: Iterable[str] = ()) -> None:
        """Name the keys that nobody read; a typing error must not pass in silence."""
        for key in self._entries:
            if key not in self._used and key not in ignored:
                self.warn(f"unknown key '{key}' is ignored", key)

    def _texts(self, path: str, items: list[Value], key: str) -> tuple[str, ...]:
        found = []
        for index, item in enumerate(items):
            if is_text(item):
                found.append(item.text)
            else:
                self.problem(f"{path}[{index}] must be text", key, item.place)
        return tuple(found)

    def _find(self, key: str) -> Value | None:
        if key not in self._entries:
            return None
        value = self._entries[key][1]
        if isinstance(value, Scalar) and value.tag == NULL_TAG:
            return None
        return value

    def _describe(self, message: str, key: str, place: Place | None, kind: Kind) -> Problem:
        if place is None:
            place = self._entries[key][0] if key in self._entries else self.place
        return Problem(
            message=message,
            path=self.at(key) if key else self.path,
            role=self.role,
            file=place.file,
            line=place.line,
            column=place.column,
            kind=kind,
        )


def is_text(value: Value) -> TypeGuard[Scalar]:
    """Whether the value is plain and not null."""
    return isinstance(value, Scalar) and value.tag != NULL_TAG


def _decimal(value: Value) -> int | None:
    if (
        isinstance(value, Scalar)
        and value.tag == INT_TAG
        and re.fullmatch(r"[-+]?(0|[1-9]\d{0,11})", value.text)
    ):
        return int(value.text)
    return None
