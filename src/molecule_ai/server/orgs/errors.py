"""What can stand in the way of an import, in the words of contract 06 §3.2."""

from __future__ import annotations

from molecule_ai.kernel.errors import ApiError, Conflict, InvalidRequest, NotFound, NotOffered, TooLarge

from .problems import InvalidOrg

SHOWN_PROBLEMS = 20


class InvalidOrgDirectory(InvalidRequest):
    """invalid org directory"""

    code = "invalid_org_directory"


class NothingToImport(InvalidRequest):
    """provide 'dir' or 'template'"""

    code = "nothing_to_import"


class InvalidMode(InvalidRequest):
    """mode must be merge"""

    code = "invalid_mode"


class BrokenTemplate(InvalidRequest):
    """invalid org template"""

    code = "invalid_org_template"


class DocumentTooLarge(TooLarge):
    """request body too large"""

    code = "too_large"


class TemplateNotFound(NotFound):
    """org template not found"""

    code = "org_template_not_found"


class MissingEnvironment(ApiError):
    """missing required environment variables"""

    status = 412
    code = "missing_environment"


class ImportRunning(Conflict):
    """org import already running"""

    code = "org_import_running"


class TreeChanged(Conflict):
    """the organization was changed by somebody else meanwhile; import again"""

    code = "org_changed"


class ReconcileNotOffered(NotOffered):
    """mode reconcile is not available on this deployment"""

    code = "reconcile_not_offered"


class SourceNotOffered(NotOffered):
    """importing from a remote source is not available on this deployment"""

    code = "source_not_offered"


def broken(problem: InvalidOrg) -> BrokenTemplate:
    """The refusal of a document, with every place to mend; never a path of this machine."""
    return BrokenTemplate(
        problem.title,
        detail=str(problem.problems[0]),
        problems=problem.problems[:SHOWN_PROBLEMS],
    )
