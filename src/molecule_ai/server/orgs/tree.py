"""YAML text as a bounded tree that remembers where each value stood."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import yaml
from msgspec import Struct

from .limits import MAX_NESTING, MAX_VALUES
from .problems import InvalidOrg, Kind, Place, Problem

Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

MERGE_TAG = "tag:yaml.org,2002:merge"
NULL_TAG = "tag:yaml.org,2002:null"
BOOL_TAG = "tag:yaml.org,2002:bool"
INT_TAG = "tag:yaml.org,2002:int"
FLOAT_TAG = "tag:yaml.org,2002:float"
STR_TAG = "tag:yaml.org,2002:str"
YAML_TAGS = "tag:yaml.org,2002:"


class Scalar(Struct, frozen=True):
    """A plain value; `text` is what the author wrote, `tag` what YAML takes it for."""

    text: str
    tag: str
    place: Place


class Sequence(Struct, frozen=True):
    items: "list[Value]"
    place: Place


class Mapping(Struct, frozen=True):
    entries: "dict[str, tuple[Place, Value]]"
    place: Place


Value = Scalar | Sequence | Mapping

# Replaces a tagged value, such as an !include; None when the tag is unknown.
Expand = Callable[[str, yaml.Node, Place], Value | None]


class Budget:
    """Bounds one document over all its files: how many values, and how deep."""

    def __init__(self) -> None:
        self._left = MAX_VALUES
        self._depth = 0

    def take(self, place: Place) -> None:
        """Account for one value. Raises `InvalidOrg` when there are too many."""
        self._left -= 1
        if self._left < 0:
            refuse(f"more than {MAX_VALUES:,} values once aliases and includes are expanded", place)

    @contextmanager
    def level(self, place: Place) -> Iterator[None]:
        """Account for one more level of nesting. Raises `InvalidOrg` when it is too deep."""
        self._depth += 1
        if self._depth > MAX_NESTING:
            refuse(f"nested more than {MAX_NESTING} levels deep", place)
        try:
            yield
        finally:
            self._depth -= 1


def refuse(message: str, place: Place, kind: Kind = Kind.CONTENT) -> NoReturn:
    """Give up on the whole document."""
    problem = Problem(message=message, file=place.file, line=place.line, column=place.column, kind=kind)
    raise InvalidOrg([problem])


def parse(text: str, file: str, budget: Budget, expand: Expand) -> Value | None:
    """Read one file; None when it is empty. Raises `InvalidOrg`."""
    try:
        _check_size(text, file)
        root = yaml.compose(text, Loader=Loader)
    except yaml.MarkedYAMLError as error:
        raise InvalidOrg([_syntax_problem(error, file)]) from error
    except yaml.YAMLError as error:
        # The reader's complaint about a control character; its text names the position.
        raise InvalidOrg([Problem(message=f"not valid YAML: {_one_line(error)}", file=file)]) from error
    if root is None:
        return None
    return _Converter(file, budget, expand).convert(root)


def from_object(value: object, budget: Budget) -> Value:
    """The same tree from decoded JSON. Raises `InvalidOrg` when it is too large or too deep."""
    place = Place()
    budget.take(place)
    with budget.level(place):
        match value:
            case None:
                return Scalar("", NULL_TAG, place)
            case bool():
                return Scalar(str(value).lower(), BOOL_TAG, place)
            case int():
                return Scalar(str(value), INT_TAG, place)
            case float():
                return Scalar(repr(value), FLOAT_TAG, place)
            case list():
                return Sequence([from_object(item, budget) for item in value], place)
            case dict():
                entries = {str(key): (place, from_object(item, budget)) for key, item in value.items()}
                return Mapping(entries, place)
            case _:
                return Scalar(str(value), STR_TAG, place)


def _check_size(text: str, file: str) -> None:
    """Refuse a deep or long text while it is still a stream, before anything recursive sees it."""
    depth = 0
    for count, event in enumerate(yaml.parse(text, Loader=Loader)):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_NESTING:
                refuse(f"nested more than {MAX_NESTING} levels deep", _place(event.start_mark, file))
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if count > 2 * MAX_VALUES:
            refuse(f"more than {MAX_VALUES:,} values", _place(event.start_mark, file))


class _Converter:
    def __init__(self, file: str, budget: Budget, expand: Expand) -> None:
        self._file = file
        self._budget = budget
        self._expand = expand
        self._open: set[int] = set()

    def convert(self, node: yaml.Node) -> Value:
        place = _place(node.start_mark, self._file)
        self._budget.take(place)
        with self._budget.level(place):
            if not node.tag.startswith(YAML_TAGS):
                expanded = self._expand(node.tag, node, place)
                if expanded is None:
                    refuse(f"unknown tag {node.tag}", place)
                return expanded
            if isinstance(node, yaml.ScalarNode):
                return Scalar(node.value, node.tag, place)
            return self._collection(node, place)

    def _collection(self, node: yaml.Node, place: Place) -> Value:
        if id(node) in self._open:
            refuse("an alias refers to a value that contains it", place)
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.SequenceNode):
                return Sequence([self.convert(item) for item in node.value], place)
            return Mapping(dict(self._entries(node)), place)
        finally:
            self._open.discard(id(node))

    def _entries(self, node: yaml.Node) -> "Iterator[tuple[str, tuple[Place, Value]]]":
        own: dict[str, tuple[Place, Value]] = {}
        merged: dict[str, tuple[Place, Value]] = {}
        for key, value in node.value:
            place = _place(key.start_mark, self._file)
            if key.tag == MERGE_TAG:
                # The first mention wins, so what is already there stays.
                merged = self._merged(value) | merged
                continue
            if not isinstance(key, yaml.ScalarNode):
                refuse("a key must be plain text", place)
            if key.value in own:
                refuse(f"the key '{key.value}' occurs twice", place)
            own[key.value] = (place, self.convert(value))
        yield from (merged | own).items()

    def _merged(self, node: yaml.Node) -> "dict[str, tuple[Place, Value]]":
        value = self.convert(node)
        sources = value.items if isinstance(value, Sequence) else [value]
        entries: dict[str, tuple[Place, Value]] = {}
        for source in sources:
            if not isinstance(source, Mapping):
                refuse("only mappings can be merged with <<", source.place)
            entries = source.entries | entries
        return entries


def _place(mark: Any, file: str) -> Place:
    return Place(file, mark.line + 1, mark.column + 1)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _syntax_problem(error: yaml.MarkedYAMLError, file: str) -> Problem:
    mark = error.problem_mark or error.context_mark
    said = error.problem or error.context or "cannot be parsed"
    place = _place(mark, file) if mark else Place(file)
    return Problem(message=f"not valid YAML: {said}", file=file, line=place.line, column=place.column)
