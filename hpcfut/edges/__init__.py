"""Edges: the thin doors to MPI and to the host. They implement the ports and take no decision."""
