"""From `org.yaml` to a checked document. Reads files and nothing else."""

from pathlib import Path

import yaml

from .document import EnvRequirement, Org
from .environment import tidy
from .fields import Fields, Findings
from .files import OrgFiles, UnreadableFile, UnsafePath
from .limits import MAX_DESCRIPTION_CHARACTERS, MAX_DOCUMENT_BYTES, MAX_INCLUDE_DEPTH, MAX_NAME_CHARACTERS
from .nodes import Reader
from .parts import read_memories, read_requirements
from .problems import InvalidOrg, Kind, OrgNotFound, Place
from .tree import Budget, Mapping, Value, from_object, parse, refuse

FILE_NAMES = ("org.yaml", "org.yml")
SCHEMA_VERSION = 1
EXTERNAL_ALLOWLIST = "MOLECULE_EXTERNAL_REPO_ALLOWLIST"


def load_directory(directory: Path, *, runtimes: frozenset[str] | None = None, strict: bool = True) -> Org:
    """Read the organization in a directory.

    A lenient reading (`strict=False`) leaves out single schedules, prompts and memories that cannot
    be used and says so in `warnings`; a strict one refuses them. `runtimes` are the names that a
    role may use; None accepts any. Raises `OrgNotFound` or `InvalidOrg`.
    """
    files = OrgFiles(directory)
    for name in FILE_NAMES:
        if (files.root / name).is_file():
            return _read(_Sources(files).start(name), files, runtimes, strict)
    raise OrgNotFound(directory.name)


def load_text(text: str, *, runtimes: frozenset[str] | None = None, strict: bool = True) -> Org:
    """Read an organization from YAML (or JSON) text, which can refer to no files. Raises `InvalidOrg`."""
    place = Place()
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        refuse("the document is not UTF-8 text", place)
    if size > MAX_DOCUMENT_BYTES:
        refuse(f"the document is larger than {MAX_DOCUMENT_BYTES:,} bytes", place)
    root = parse(text, "", Budget(), _refuse_tags)
    if root is None:
        refuse("the document is empty", place)
    return _read(root, None, runtimes, strict)


def load_object(template: object, *, runtimes: frozenset[str] | None = None, strict: bool = True) -> Org:
    """Read an organization from decoded JSON. Raises `InvalidOrg`."""
    return _read(from_object(template, Budget()), None, runtimes, strict)


class _Sources:
    """Follows includes from file to file."""

    def __init__(self, files: OrgFiles) -> None:
        self._files = files
        self._budget = Budget()
        self._open: list[Path] = []

    def start(self, name: str) -> Value:
        """The tree of the whole document."""
        place = Place(name)
        try:
            return self.open(self._files.resolve(name), place)
        except UnsafePath as error:
            refuse(str(error), place, Kind.EXPANSION)

    def open(self, path: Path, place: Place) -> Value:
        """The tree of one file; `place` is where it was asked for."""
        try:
            text = self._files.document(path)
        except UnreadableFile as error:
            refuse(str(error), place, Kind.EXPANSION)
        self._open.append(path)
        try:
            root = parse(text, self._files.name(path), self._budget, self._expand)
        finally:
            self._open.pop()
        if root is None:
            refuse(f"'{self._files.name(path)}' is empty", place, Kind.EXPANSION)
        return root

    def _expand(self, tag: str, node: yaml.Node, place: Place) -> Value | None:
        if tag != "!include":
            _refuse_tags(tag, node, place)
            return None
        if not isinstance(node, yaml.ScalarNode):
            refuse("!include takes the path of one file", place, Kind.EXPANSION)
        try:
            path = self._files.resolve(node.value, beside=self._open[-1])
        except UnsafePath as error:
            refuse(f"!include: {error}", place, Kind.EXPANSION)
        if path in self._open:
            chain = [*self._open[self._open.index(path) :], path]
            names = " -> ".join(self._files.name(step) for step in chain)
            refuse(f"!include runs in a circle: {names}", place, Kind.EXPANSION)
        if len(self._open) > MAX_INCLUDE_DEPTH:
            refuse(f"!include is nested more than {MAX_INCLUDE_DEPTH} deep", place, Kind.EXPANSION)
        return self.open(path, place)


def _refuse_tags(tag: str, node: yaml.Node, place: Place) -> None:
    if tag == "!include":
        refuse("!include needs an organization directory", place, Kind.EXPANSION)
    if tag == "!external":
        refuse(f"!external: no repository is allowed; {EXTERNAL_ALLOWLIST} is empty", place, Kind.EXPANSION)


def _read(root: Value, files: OrgFiles | None, runtimes: frozenset[str] | None, strict: bool) -> Org:
    if not isinstance(root, Mapping):
        refuse("an organization is a mapping with a name and workspaces", root.place)
    findings = Findings(strict)
    fields = Fields(root, findings)
    org = _org(fields, Reader(files, runtimes))
    if findings.problems:
        raise InvalidOrg(findings.problems)
    return org


def _org(fields: Fields, reader: Reader) -> Org:
    _check_version(fields)
    name = _name(fields)
    description = (fields.text("description", max_characters=MAX_DESCRIPTION_CHARACTERS) or "").strip()
    defaults_fields = _defaults(fields)
    defaults = reader.defaults(defaults_fields)
    key = "roots" if fields.has("roots") and not fields.has("workspaces") else "workspaces"
    roots = reader.roots(fields, key, defaults)
    if not roots:
        fields.problem("an organization needs at least one workspace", key)
    required: list[EnvRequirement] = []
    recommended: list[EnvRequirement] = []
    for holder in (fields, defaults_fields):
        required += read_requirements(holder, "required_env")
        recommended += read_requirements(holder, "recommended_env")
    for root in roots:
        for workspace in root.walk():
            required += workspace.required_env
            recommended += workspace.recommended_env
    all_required, all_recommended = tidy(required, recommended)
    memories = read_memories(fields, "global_memories")
    defaults_fields.warn_of_unknown()
    fields.warn_of_unknown()
    return Org(
        name=name,
        description=description,
        workspaces=roots,
        global_memories=memories,
        required_env=all_required,
        recommended_env=all_recommended,
        warnings=tuple(fields.findings.warnings),
    )


def _check_version(fields: Fields) -> None:
    version = fields.integer("template_schema_version", low=0, high=1_000_000)
    if version is not None and version > SCHEMA_VERSION:
        fields.problem(
            f"template_schema_version {version} is newer than {SCHEMA_VERSION}", "template_schema_version"
        )


def _name(fields: Fields) -> str:
    if fields.is_blank("name") and fields.is_blank("org_name"):
        fields.problem("an organization needs a name", "name")
    alias = fields.text("org_name", max_characters=MAX_NAME_CHARACTERS, one_line=True)
    name = fields.text("name", max_characters=MAX_NAME_CHARACTERS, one_line=True)
    return (name or alias or "").strip()


def _defaults(fields: Fields) -> Fields:
    value = fields.value("defaults")
    if isinstance(value, Mapping):
        return Fields(value, fields.findings, "defaults")
    if value is not None:
        fields.problem("defaults must be a mapping", "defaults", value.place)
    return Fields(Mapping({}, fields.place), fields.findings, "defaults")
