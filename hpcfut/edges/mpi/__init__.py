"""The only place that imports mpi4py, and only inside functions that are called when MPI is wanted."""
