import random
from pathlib import Path

from molecule_ai.server.edge.buckets import WINDOW_SECONDS, Buckets


def test_a_window_begins_with_its_first_request_and_lasts_a_minute() -> None:
    buckets = Buckets(slots=64)
    assert buckets.take(7, 100.0) == (1, 60)
    assert buckets.take(7, 130.5) == (2, 30)
    assert buckets.take(7, 159.9) == (3, 1)
    assert buckets.take(7, 160.0) == (1, 60)


def test_keys_do_not_disturb_each_other() -> None:
    buckets = Buckets()
    draw = random.Random(2)
    keys = [draw.getrandbits(64) for _ in range(20_000)]
    for turn in (1, 2):
        counts = [buckets.take(key, 1000.0)[0] for key in keys]
        assert counts == [turn] * len(keys)


def test_a_full_table_forgets_the_oldest() -> None:
    buckets = Buckets(slots=8)
    for key in range(1, 9):
        buckets.take(key, 1000.0 + key)
    assert buckets.take(99, 1010.0)[0] == 1
    assert buckets.take(2, 1010.0)[0] == 2
    assert buckets.take(1, 1011.0)[0] == 1


def test_processes_share_a_file(tmp_path: Path) -> None:
    one, two = Buckets(slots=64), Buckets(slots=64)
    one.share(tmp_path / "workers")
    two.share(tmp_path / "workers")
    assert [bucket.take(5, 50.0)[0] for bucket in (one, two, one)] == [1, 2, 3]
    assert one.take(5, 50.0 + WINDOW_SECONDS)[0] == 1


def test_a_folder_that_cannot_be_made_leaves_a_worker_on_its_own(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    alone = Buckets(slots=64)
    alone.share(tmp_path / "file" / "workers")
    assert alone.take(5, 1.0)[0] == 1
