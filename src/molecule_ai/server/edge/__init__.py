"""What every request passes before its route: ids, limits, headers, counters (contract 01 §1.1)."""
