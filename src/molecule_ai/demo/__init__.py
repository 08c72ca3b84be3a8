"""The demo: an organization comes up, talks, is scheduled, asks, sleeps, wakes and is stopped, for real."""
