"""What sdegen-evaluate says of samples that have no value."""

from __future__ import annotations

import pytest

from sdegen.runs.likelihood import mean_of, table


def test_failed_samples_are_no_zeros() -> None:
    assert mean_of([None, None]) == {"mean": None, "error": None, "failed": 2}
    assert mean_of([3.0, None]) == {"mean": 3.0, "error": None, "failed": 1}
    found = mean_of([1.0, 2.0, 6.0])
    assert found["mean"] == 3 and found["error"] == pytest.approx((14 / 2 / 3) ** 0.5)
    lines = table({"flow": mean_of([None, None]), "nfe": mean_of([4.0, 4.0])}, "nats", 2)
    assert lines.splitlines()[2].split() == ["probability", "flow", "-", "-", "2"]
    assert lines.splitlines()[3].split() == ["network", "calls", "4.0", "0.0", "0"]
