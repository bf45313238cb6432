"""The pure core of a rank: ids, sizes, ranks and states in, effects out. No IO, clock, thread or byte is touched."""
