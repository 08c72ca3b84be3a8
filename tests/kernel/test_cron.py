"""The cron grammar of contract 03 §2.3."""

import pytest

from molecule_ai.kernel.cron import InvalidCron, normalize


@pytest.mark.parametrize(
    ("given", "normal"),
    [
        ("*/5 * * * *", "*/5 * * * *"),
        ("  0   9 * * 1-5 ", "0 9 * * 1-5"),
        ("0 9 ? * mon,WED-fri", "0 9 ? * mon,WED-fri"),
        ("0 0 1 jan-mar/2 *", "0 0 1 jan-mar/2 *"),
        ("0 0 * * 7", "0 0 * * 7"),
        ("1,2,10-20/3 5/2 * * *", "1,2,10-20/3 5/2 * * *"),
        ("@Weekly", "0 0 * * 0"),
        ("0 0 29 2 *", "0 0 29 2 *"),
    ],
)
def test_accepted(given: str, normal: str) -> None:
    assert normalize(given) == normal


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("", "five fields"),
        ("* * * *", "five fields"),
        ("0 * * * * *", "five fields"),
        ("60 * * * *", "minute"),
        ("* 24 * * *", "hour"),
        ("* * 0 * *", "day-of-month"),
        ("* * L * *", "day-of-month"),
        ("* * * 13 *", "month"),
        ("* * * * 8", "day-of-week"),
        ("* * * * 1#2", "day-of-week"),
        ("20-10 * * * *", "minute"),
        ("*/0 * * * *", "minute"),
        ("1,,2 * * * *", "minute"),
        ("0 0 30 2 *", "never fires"),
        ("@every 5m", "@every"),
        ("@reboot", "@reboot"),
        ("CRON_TZ=UTC 0 0 * * *", "timezone"),
        ("TZ=UTC 0 0 * * *", "timezone"),
    ],
)
def test_refused(given: str, reason: str) -> None:
    with pytest.raises(InvalidCron, match=reason):
        normalize(given)
