"""The files of one organization directory, read within limits and never outside of it."""

from pathlib import Path

from molecule_ai.kernel.paths import PathRejected, inside

from .limits import MAX_DOCUMENT_BYTES, MAX_PROMPT_BYTES, MAX_PROMPTS_BYTES


class UnsafePath(ValueError):
    """The path leaves the organization's directory, or cannot be a path at all."""


class UnreadableFile(ValueError):
    """The file is missing, too large, or no UTF-8 text."""


class OrgFiles:
    """Reads documents and prompts below one directory, and counts what it read."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self._documents_left = MAX_DOCUMENT_BYTES
        self._prompts_left = MAX_PROMPTS_BYTES

    def resolve(self, relative: str, beside: Path | None = None) -> Path:
        """The file that `relative` names, from the root or beside a file, its links followed.

        Raises `UnsafePath`.
        """
        if not relative.strip() or relative.startswith("/"):
            raise UnsafePath(f"'{relative}' is not a relative path")
        directory = self.name(beside.parent) if beside else "."
        try:
            return inside(self.root, f"{directory}/{relative}").resolve()
        except PathRejected as error:
            raise UnsafePath(f"'{relative[:80]}' leaves the directory of the organization") from error

    def name(self, path: Path) -> str:
        """How messages call a file: its path inside the directory, never the host's."""
        return path.relative_to(self.root).as_posix()

    def document(self, path: Path) -> str:
        """The text of a YAML file. Raises `UnreadableFile`."""
        text, size = self._read(path, self._documents_left, "the document with its includes")
        self._documents_left -= size
        return text

    def prompt(self, path: Path) -> str:
        """The text of a prompt file, with Unix line ends. Raises `UnreadableFile`."""
        text, size = self._read(path, min(MAX_PROMPT_BYTES, self._prompts_left), "the prompt")
        self._prompts_left -= size
        return text.replace("\r", "")

    def _read(self, path: Path, limit: int, what: str) -> tuple[str, int]:
        try:
            if not path.is_file():
                raise UnreadableFile(f"there is no file '{self.name(path)}'")
            with path.open("rb") as file:
                content = file.read(limit + 1)
        except OSError as error:
            raise UnreadableFile(f"'{self.name(path)}' cannot be read") from error
        if len(content) > limit:
            raise UnreadableFile(f"{what} is larger than {limit:,} bytes at '{self.name(path)}'")
        try:
            return content.decode("utf-8-sig"), len(content)
        except UnicodeDecodeError as error:
            raise UnreadableFile(f"'{self.name(path)}' is not UTF-8 text") from error
