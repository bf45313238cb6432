"""Plain mpi4py on two hosts: who is where, and one array across. Prints one JSON object."""

import json
import socket
import sys

import numpy as np
from mpi4py import MPI

world = MPI.COMM_WORLD
host = world.Split_type(MPI.COMM_TYPE_SHARED)
n_groups = world.allreduce(1 if host.rank == 0 else 0)
names = world.gather(socket.gethostname())
array = np.full(int(sys.argv[1]), world.rank, np.uint8)
if world.rank == 0:
    world.Send(array, dest=world.size - 1)
elif world.rank == world.size - 1:
    world.Recv(array, source=0)
arrived = world.gather(int(array.max()))
if world.rank == 0:
    print(json.dumps({"n_groups": n_groups, "names": names, "arrived": arrived}))
