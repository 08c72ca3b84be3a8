"""What can go wrong with schedules, in the words of contract 03 §2."""

from __future__ import annotations

from molecule_ai.kernel.errors import Conflict, InvalidRequest, NotFound, NotPermitted
from molecule_ai.server.auth.errors import WorkspaceNotFound

__all__ = ["WorkspaceNotFound"]


class ScheduleNotFound(NotFound):
    """schedule not found"""

    code = "schedule_not_found"


class CronAndPromptRequired(InvalidRequest):
    """cron_expr and prompt are required"""

    code = "cron_and_prompt_required"


class PromptEmpty(InvalidRequest):
    """prompt must not be empty"""

    code = "prompt_empty"


class PromptTooLong(InvalidRequest):
    """prompt exceeds 65536 bytes"""

    code = "prompt_too_long"


class NameTooLong(InvalidRequest):
    """name exceeds 200 characters"""

    code = "name_too_long"


class CronNamesDisagree(InvalidRequest):
    """cron_expr and expression disagree"""

    code = "cron_names_disagree"


class InvalidCronExpression(InvalidRequest):
    """invalid cron expression: bad minute '61'"""

    code = "invalid_cron"


class CronNeverFires(InvalidRequest):
    """cron expression never fires"""

    code = "cron_never_fires"


class InvalidTimezone(InvalidRequest):
    """invalid timezone: Mars/Base"""

    code = "invalid_timezone"


class InvalidInstant(InvalidRequest):
    """at must be RFC 3339 (e.g. 2026-04-17T09:00:00Z)"""

    code = "invalid_instant"


class NameTaken(Conflict):
    """schedule name already exists"""

    code = "schedule_name_taken"


class TooManySchedules(Conflict):
    """a workspace holds at most 200 schedules"""

    code = "too_many_schedules"


class RunInProgress(Conflict):
    """a run of this schedule is already in progress"""

    code = "run_in_progress"


class AccessDenied(NotPermitted):
    """access denied"""

    code = "access_denied"
