"""The cron grammar that every schedule speaks (contract 03 §2.3)."""

import re
from datetime import UTC, datetime

from cronsim import CronSim, CronSimError

SHORTHANDS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
FIELD_NAMES = ("minute", "hour", "day-of-month", "month", "day-of-week")
NUMBER = r"\d{1,3}"
PLAIN = rf"(?:[*?]|{NUMBER}(?:-{NUMBER})?)(?:/{NUMBER})?"
NAMES_BY_FIELD = {
    "month": "JAN|FEB|MAR|APR|MAY|JUN|JUL|AUG|SEP|OCT|NOV|DEC",
    "day-of-week": "SUN|MON|TUE|WED|THU|FRI|SAT",
}
# Any instant will do: whether an expression ever matches does not depend on where one starts.
SOME_DAY = datetime(2024, 1, 1, tzinfo=UTC)


class InvalidCron(ValueError):
    """The text is no cron expression that we accept; the message says which part."""


def normalize(expression: str) -> str:
    """The expression in five fields, single-spaced. Raises `InvalidCron`."""
    text = expression.strip()
    if text.startswith("@"):
        if text.lower() not in SHORTHANDS:
            raise InvalidCron(f"{text.split()[0]} is not supported")
        return SHORTHANDS[text.lower()]
    if re.match(r"(CRON_)?TZ=", text):
        raise InvalidCron("set the time zone in the field timezone")
    fields = text.split()
    if len(fields) != len(FIELD_NAMES):
        raise InvalidCron(f"five fields are needed, not {len(fields)}")
    for name, value in zip(FIELD_NAMES, fields, strict=True):
        _check_shape(name, value)
    normal = " ".join(fields)
    _check_match(normal)
    return normal


def _check_match(expression: str) -> None:
    """Refuse values out of range, and an expression that matches no instant at all."""
    try:
        next(CronSim(expression.replace("?", "*"), SOME_DAY))
    except StopIteration as error:
        raise InvalidCron("cron expression never fires") from error
    except CronSimError as error:
        minute, hour, day, month, weekday = expression.split()
        if month != "*":
            # The library calls the 30th of February a bad day; the day as such may be fine.
            _check_match(f"{minute} {hour} {day} * {weekday}")
            if "day-of-month" in str(error):
                raise InvalidCron("cron expression never fires") from error
        raise InvalidCron(str(error).lower()) from error


def _check_shape(name: str, value: str) -> None:
    """Refuse what the library knows and the contract does not: `L`, `LW`, `#`, names elsewhere."""
    plain = value
    if name in NAMES_BY_FIELD:
        plain = re.sub(rf"\b(?:{NAMES_BY_FIELD[name]})\b", "1", value, flags=re.IGNORECASE)
    if any(not re.fullmatch(PLAIN, part) for part in plain.split(",")):
        raise InvalidCron(f"bad {name} '{value[:40]}'")
