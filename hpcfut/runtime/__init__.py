"""The runtime of a rank: the only place that has threads, a clock and the core at once."""
