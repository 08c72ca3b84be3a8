"""What can be wrong with an organization document, and where."""

from enum import StrEnum

from msgspec import Struct


class Kind(StrEnum):
    """What a problem stands in the way of; it decides the text of the refusal."""

    EXPANSION = "expansion"  # an !include or !external could not be followed
    CONTENT = "content"  # the text is no YAML, or the YAML is no organization
    ITEM = "item"  # one schedule, prompt or memory cannot be used; the rest can


class Place(Struct, frozen=True):
    """A spot in a file; lines and columns count from 1. An inline object has none."""

    file: str = ""
    line: int | None = None
    column: int | None = None


class Problem(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing to mend, told so that its author finds it without searching."""

    message: str
    path: str = ""
    role: str = ""
    file: str = ""
    line: int | None = None
    column: int | None = None
    kind: Kind = Kind.CONTENT

    def __str__(self) -> str:
        spot = self.file or "org"
        if self.line is not None:
            spot += f":{self.line}:{self.column}"
        where = f" {self.path}" if self.path else ""
        who = f" ({self.role})" if self.role else ""
        return f"{spot}:{where}{who}: {self.message}"


class InvalidOrg(ValueError):
    """The document cannot become an organization; `problems` says why, in reading order."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        super().__init__("; ".join(str(problem) for problem in problems[:5]))

    @property
    def title(self) -> str:
        """The refusal in the words of contract 06 §3.2."""
        if any(problem.kind is Kind.EXPANSION for problem in self.problems):
            return "org template expansion failed"
        return "invalid org template"


class OrgNotFound(LookupError):
    """There is no org.yaml (and no org.yml) in the directory."""
