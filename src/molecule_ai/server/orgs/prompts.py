"""Prompts, written in the document or in a file beside it."""

from .fields import Fields
from .files import OrgFiles, UnreadableFile, UnsafePath


class Prompts:
    """Finds the prompts of one role, relative to its `files_dir`."""

    def __init__(self, files: OrgFiles | None, directory: str = "") -> None:
        self._files = files
        self._directory = directory

    def read(self, fields: Fields, key: str) -> str | None:
        """The text under `key`, else the file under `key_file`; None when neither can be used."""
        inline = fields.text(key)
        named = fields.text(f"{key}_file")
        if inline and inline.strip():
            return inline.replace("\r", "").strip()
        if named:
            return self._from_file(fields, f"{key}_file", named)
        return None

    def _from_file(self, fields: Fields, key: str, named: str) -> str | None:
        if self._files is None:
            fields.problem(f"{key} needs an organization directory; write the prompt in place", key)
            return None
        try:
            # Joined as text, so that the check sees the whole path that the document asks for.
            path = self._files.resolve(f"{self._directory}/{named}" if self._directory else named)
            return self._files.prompt(path).strip() or None
        except UnsafePath as error:
            fields.problem(f"{key}: {error}", key)
        except UnreadableFile as error:
            fields.leave_out(f"{key}: {error}", key)
        return None
