"""The simulator: real cores on virtual ranks, in virtual time, from one seed. See ``world.py``."""
