"""What one host offers without MPI: a transport and a window for one rank, the clock, and what the machine has."""
