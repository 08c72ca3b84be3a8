"""Failed comparisons in the helpers show both sides, as in the tests themselves."""

import pytest

pytest.register_assert_rewrite("tests.house", "tests.chaos.truth", "tests.chaos.work")
