"""Hello from every rank: remote functions, their options, and references passed on.

On one rank, and on four:

    python examples/hello.py
    hpcfut run -n 4 examples/hello.py
"""

import socket

import hpcfut


@hpcfut.remote
def greet(name: str) -> str:
    """An ordinary function; `greet.remote(...)` makes a task of it, which runs on some rank of the job."""
    rank = hpcfut.get_runtime_context().get_rank()
    return f"Hello {name}, this is rank {rank} on {socket.gethostname()}."


@hpcfut.remote
def count_words(*texts: str) -> int:
    return sum(len(text.split()) for text in texts)


# `.remote()` returns at once, with a reference to a value that does not exist yet. `get` waits for the value.
ref = greet.remote("world")
print(hpcfut.get(ref))

# A task runs wherever there is room, unless it is bound to a rank.
refs = []
for node in hpcfut.nodes():
    there = hpcfut.NodeAffinitySchedulingStrategy(node["NodeID"])
    refs.append(greet.options(scheduling_strategy=there).remote("driver"))
for greeting in hpcfut.get(refs):
    print(greeting)

# A reference given to a task arrives there as its value. It travels from rank to rank and not through this script.
print(hpcfut.get(count_words.remote(*refs)), "words were said by all ranks.")
