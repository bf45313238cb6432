"""The architecture, as a test: who may import what, one door per foreign thing, a pure core, nothing blocking, sizes.

Every exception is named here with its reason.
"""

from __future__ import annotations

import ast
import fnmatch
import re
import subprocess
import sys
from typing import Final

from tests.sources import (
    CHECKOUT,
    CORE,
    MODULES,
    NAMES,
    PACKAGE,
    functions_of,
    global_state_of,
    imports_of,
    is_look,
    is_order_free,
    is_set,
    is_within,
    line_of,
    nodes_with_users,
    own_name,
    words,
)

N_LINES_MAX: Final = 400
N_FUNCTION_LINES_MAX: Final = 70

#: Folder or module → what it may import of the package, besides itself. The longest name that fits counts.
LAYERS: Final[dict[str, tuple[str, ...]]] = {
    "model": (),
    "ports": ("model",),
    "wire": ("model",),
    "core": ("model", "wire.messages", "wire.queries", "wire.standstills", "wire.joining", "wire.actors"),
    "sim": ("core", "ports", "wire", "model"),
    "edges.mpi": ("ports", "wire", "model"),
    "edges.cuda": ("ports", "wire", "model"),
    "edges.host": ("ports", "wire", "model"),
    "edges": (),
    "runtime": ("core", "ports", "wire", "model"),
    # The one composition root.
    "runtime.job": ("runtime", "core", "ports", "wire", "model", "edges.mpi", "edges.host"),
    # Watches a rank from outside its engine: the process that it was started by, and the notes for `hpcfut run`.
    "runtime.rank_watch": ("runtime", "core", "ports", "wire", "model", "edges.host"),
    # And that of the child processes in which isolated tasks run.
    "runtime.child": ("runtime", "core", "ports", "wire", "model", "edges.host"),
    "runtime.bootstrap": ("runtime", "core", "ports", "wire", "model", "edges.mpi", "edges.host", "version"),
    "api": ("runtime", "wire.pickling", "model"),
    # `hpcfut run` and `hpcfut doctor` look at the host before there is any rank, and after the last.
    "cli": ("api", "edges.host", "model"),
    # The part of `hpcfut doctor` that runs on ranks of its own, and measures the real transport.
    "cli.probe": ("cli", "edges.host", "edges.mpi", "model"),
    # A script that it runs, as users write them.
    "cli.dying_ranks": ("",),
    "exceptions": ("model.errors", "wire.exceptions", "wire.pickling"),
    "version": (),
    # ``import hpcfut``, and ``python -m hpcfut``.
    "": ("api", "exceptions", "version", "actor", "util"),
    # As in Ray.
    "actor": ("api",),
    "__main__": ("api",),
    # Libraries import ``hpcfut`` and nothing below.
    "shuffle": ("",),
    "interop": ("",),
    "io": ("",),
    "util": ("",),
}

#: Foreign module → the only places that may import it. What is neither here nor in the standard library is not imported
#: at all.
DOORS: Final[dict[str, tuple[str, ...]]] = {
    "mpi4py": ("edges.mpi",),
    "cupy": ("edges.cuda",),
    "h5py": ("io",),
    "xxhash": ("edges.host",),
    "pickle": ("wire.pickling",),
    "copyreg": ("wire.pickling",),
    "cloudpickle": ("wire.pickling",),
    "marshal": (),
    "shelve": (),
    # The launcher is a process of its own and no rank: it watches a job with the clock. A file that somebody else has
    # locked is tried again after a while: nobody tells when it is free. A pool of actors gives out work while somebody
    # waits for a result, in several calls of `wait` that share one deadline.
    "time": ("runtime", "edges.host", "cli", "io.files", "util.actor_pool"),
    # In `api` the locks round the start and end of the session, the registering of functions and the end of a future,
    # and which thread is the main one; in `wire.pickling` whose payload a thread is loading.
    "threading": (
        *("runtime", "edges.host", "wire.pickling", "__main__"),
        *("api.session", "api.interrupts", "api.timeouts", "api.futures", "api.remote", "api.actors"),
    ),
    "_thread": (),
    # In `util` inside of async actors, which wait by it.
    "asyncio": ("api.awaiting", "runtime.loops", "runtime.led_loop", "util.queue", "util.semaphore", "util.barrier"),
    # Loaded by the first ``ref.future()`` only.
    "concurrent": ("api.futures",),
    "multiprocessing": (),
    "sched": (),
    "datetime": (),
    "signal": ("runtime", "edges.host", "cli", "api.interrupts"),
    "subprocess": ("cli", "edges.host"),
    # The simulator's one generator, made from the seed.
    "random": ("sim",),
    "logging": (),
    "msgspec": ("",),
    # Never at the top of a module: the numbers of threads of BLAS are set before NumPy is loaded.
    "numpy": ("wire", "edges.host", "edges.cuda", "shuffle", "interop", "io", "util"),
    "psutil": ("cli", "edges.host"),
    "rich": ("cli", "util"),
    "tqdm": ("cli", "util"),
    "typer": ("cli",),
}

#: All that the core may take from outside.
CORE_IMPORTS: Final = ("__future__", "bisect", "collections", "heapq", "itertools", "msgspec", "typing")
CORE_CALLS_NOT: Final = words(
    "__import__ breakpoint compile eval exec getattr globals hash id input locals open print setattr vars"
)
#: What the core carries and never looks into.
OPAQUE: Final = frozenset({"payload", "recipe", "function", "retry_exceptions"})
#: Inside the core each machine calls only those before it.
CHAIN: Final = words(
    "arena actor_events events effects context ownership borrowing copy copies fullness spills pressure loans "
    "readers transfers keepers references answers templates membership address task lineage footprints lease ahead "
    "locality pushes leases addresses items tasks calls stranded cancellations names actors room run grants "
    "scheduler arguments runs disowned resident residents cancelled_runs orphans recalls streams wait waits watches "
    "recovery notices inventories stuck standstills fates burials estates arrivals replacements deaths statistics "
    "routes rank"
)

#: Calls of MPI that wait for other ranks. Capital letters mean nothing else anywhere in the package.
BLOCKING: Final = words(
    "Accept Agree Allgather Allgatherv Allocate_shared Allreduce Alltoall Alltoallv Alltoallw Barrier Bcast Bsend "
    "Clone Complete Connect Create Create_cart Create_group Disconnect Dup Exscan Fence Finalize Flush Flush_all Free "
    "Gather Gatherv Init Init_thread Lock Lock_all Merge Mprobe Post Probe Recv Reduce Reduce_scatter Rsend Scan "
    "Scatter Scatterv Send Sendrecv Sendrecv_replace Shrink Spawn Split Split_type Ssend Start_all Unlock Unlock_all "
    "Wait Waitall Waitany Waitsome"
)
BLOCKING_OBJECTS: Final = words(
    "allgather allreduce alltoall barrier bcast bsend exscan gather mprobe probe recv reduce scan scatter send "
    "sendrecv ssend wait waitall waitany waitsome"
)
#: Start and end: (module, function).
MAY_BLOCK: Final = {
    ("edges.mpi.start", "World.gather"),
    ("edges.mpi.start", "World.gather_records"),
    ("edges.mpi.start", "World.finalize"),
    ("edges.mpi.start", "start_mpi"),
    ("edges.mpi.transport", "MpiTransport.__init__"),
    ("edges.mpi.transport", "MpiTransport.close"),
    ("edges.mpi.fabric", "reads_without_target"),
    ("edges.mpi.common_memory", "MpiMemory.among"),
    ("edges.mpi.common_memory", "MpiMemory.allocate"),
    ("edges.mpi.common_memory", "MpiMemory.gather"),
    ("edges.mpi.common_memory", "MpiMemory.free"),
    ("edges.mpi.common_memory", "MpiMemory.close"),
    ("edges.mpi.one_sided", "OneSided.expose"),
    ("edges.mpi.one_sided", "OneSided.hide"),
    # On threads of their own, which may wait for ever.
    *(("edges.mpi.links", function) for function in words("Pair.__init__ Pair.send Pair.receive spawn accept connect")),
    # Groups of ranks, which are local.
    ("edges.mpi.deaths", "failed_ranks"),
    # Not that of MPI, but of the transport, which does not block.
    *(("edges.mpi.linked", f"LinkedTransport.{function}") for function in words("__init__ use dismiss _send")),
    ("edges.mpi.surviving", "SurvivingTransport.send"),
    # On a communicator of this rank alone.
    ("edges.mpi.deaths", "tells_of_deaths"),
}

#: State that outlives a call, besides that of objects: (module, name).
GLOBAL_STATE: Final = {
    # The job and the session of this process: the one runtime.
    ("api.session", "_session"),
    # Error classes made for the users' types; one class for one type, or ``except`` would not find it.
    ("api.failures", "_dual"),
}


def rule_of(name: str) -> str:
    fitting = [layer for layer in LAYERS if name == layer or (layer and name.startswith(f"{layer}."))]
    assert fitting, f"The module '{name}' belongs to no layer."
    return max(fitting, key=len)


def test_layers() -> None:
    offences = []
    for module in MODULES:
        rule = rule_of(module.name)
        allowed = LAYERS[rule]
        for imported, line in imports_of(module.tree):
            target = own_name(imported)
            if target is None or (rule and is_within(target, [rule])):
                continue
            if not (target in allowed if not target else is_within(target, filter(None, allowed))):
                offences.append(f"{module.path}:{line}: '{rule}' may not import hpcfut.{target}.")
    assert not offences, "\n".join(offences)


def test_layers_name_nothing_that_is_not_there() -> None:
    planned = {"edges.cuda", "shuffle", "interop"}
    missing = [layer for layer in LAYERS if layer not in NAMES | planned]
    assert not missing
    assert not [layer for layer in planned if layer in NAMES and not list((PACKAGE / layer).glob("*.py"))]


def test_doors() -> None:
    offences = []
    for module in MODULES:
        for imported, line in imports_of(module.tree):
            top = imported.partition(".")[0]
            if top == "hpcfut":
                continue
            if top not in DOORS:
                if top not in sys.stdlib_module_names:
                    offences.append(f"{module.path}:{line}: {top} has no door.")
            elif not is_within(module.name, DOORS[top]):
                offences.append(f"{module.path}:{line}: {top} may be imported in {DOORS[top]} only.")
    assert not offences, "\n".join(offences)


def test_nothing_is_imported_by_a_text() -> None:
    pattern = re.compile(r"\bimport_module\b|__import__")
    # Pickling loads the modules that the classes of users name, as unpickling does.
    modules = [module for module in MODULES if module.name != "wire.pickling.values"]
    assert not [str(module.path) for module in modules if pattern.search(module.path.read_text())]


def test_the_core_takes_nothing_from_outside() -> None:
    for module in CORE:
        for imported, line in imports_of(module.tree):
            is_allowed = own_name(imported) is not None or is_within(imported, CORE_IMPORTS)
            assert is_allowed, f"{module.path}:{line}: the core imports {imported}."


def test_the_core_is_pure() -> None:
    offences = []
    for module in CORE:
        for node, user in nodes_with_users(module.tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CORE_CALLS_NOT:
                offences.append(f"{module.path}:{line_of(node)}: the core calls {node.func.id}().")
            if isinstance(node, ast.Global | ast.AsyncFunctionDef | ast.Await):
                offences.append(f"{module.path}:{line_of(node)}: the core has {type(node).__name__}.")
            if is_set(node) and not is_order_free(user):
                offences.append(f"{module.path}:{line_of(node)}: a set, which must not be iterated; use a dict.")
    assert not offences, "\n".join(offences)


def test_the_core_does_not_look_into_bytes() -> None:
    offences = []
    for module in CORE:
        for node, user in nodes_with_users(module.tree):
            name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
            if name in OPAQUE and is_look(user):
                offences.append(f"{module.path}:{line_of(node)}: the core looks into {name}.")
    assert not offences, "\n".join(offences)


def test_machines_form_a_chain() -> None:
    assert {f"core.{name}" for name in CHAIN} | {"core"} == {module.name for module in CORE}
    for module in CORE:
        if module.name == "core":
            continue
        place = CHAIN.index(module.name.removeprefix("core."))
        # Imports for annotations alone may look ahead.
        for_types = {
            imported
            for node in ast.walk(module.tree)
            if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
            for imported, _ in imports_of(node)
        }
        for imported, line in imports_of(module.tree):
            target = (own_name(imported) or "").removeprefix("core.")
            assert target not in CHAIN[place:] or imported in for_types, (
                f"{module.path}:{line}: core.{target} comes later in the chain."
            )


def test_no_call_blocks_after_start() -> None:
    used = set()
    offences = []
    for module in MODULES:
        names = BLOCKING + BLOCKING_OBJECTS if is_within(module.name, ["edges.mpi"]) else BLOCKING
        for function, body in functions_of(module.tree):
            for node in ast.walk(body):
                if isinstance(node, ast.Attribute) and node.attr in names and ast.unparse(node.value) != "threading":
                    used.add((module.name, function))
                    if (module.name, function) not in MAY_BLOCK:
                        offences.append(f"{module.path}:{line_of(node)}: {node.attr} may block.")
    assert not offences, "\n".join(offences)
    assert used == MAY_BLOCK, f"Exceptions that nothing needs: {MAY_BLOCK - used}"


def test_no_global_state_but_the_runtime() -> None:
    found = {(module.name, name) for module in MODULES for name in global_state_of(module.tree)}
    foreign = {pair for pair in found if not is_within(pair[0], ["wire.pickling"])}
    assert foreign == GLOBAL_STATE
    # Pickle rebuilds values through module-level functions, which can reach nothing else.
    assert {name for _, name in found - foreign} == {"loading", "_is_original"}


#: Whose underscores are part of what is offered.
AT_HOME = ("self", "cls", "super()", "os", "subprocess", "sys")


def test_private_names_stay_private() -> None:
    """Nobody imports a private name, or touches a private attribute that another folder defines."""
    defined: dict[str, set[str]] = {}
    for module in MODULES:
        own = defined.setdefault(module.name.rpartition(".")[0], set())
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                own.add(node.attr)
            if isinstance(node, ast.FunctionDef):
                own.add(node.name)
    offences = []
    for module in MODULES:
        for node in ast.walk(module.tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.ImportFrom) else []
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) not in AT_HOME:
                names = [node.attr] if node.attr not in defined[module.name.rpartition(".")[0]] else []
            offences += [
                f"{module.path}:{line_of(node)}: {name} is private."
                for name in names
                if name.startswith("_") and not name.endswith("__")
            ]
    assert not offences, "\n".join(offences)


def test_typing_is_whole() -> None:
    assert (PACKAGE / "py.typed").is_file()
    excuse = re.compile(r"#\s*(mypy:|type:\s*ignore(?!\[)|ruff:\s*noqa|noqa(?!:))")
    offences = [
        f"{module.path}:{number}: {line.strip()}"
        for module in MODULES
        for number, line in enumerate(module.path.read_text().splitlines(), 1)
        if excuse.search(line)
    ]
    assert not offences, "\n".join(offences)
    assert not [str(module.path) for module in MODULES if not ast.get_docstring(module.tree)]


def test_files_and_functions_are_short() -> None:
    offences = []
    for folder in ("hpcfut", "examples", "benchmarks"):
        for path in sorted((CHECKOUT / folder).rglob("*.py")):
            name = str(path.relative_to(CHECKOUT))
            n_lines = len(path.read_text().splitlines())
            if n_lines > N_LINES_MAX:
                offences.append(f"{name} has {n_lines} lines.")
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    n_lines = (node.end_lineno or 0) - node.lineno + 1
                    if n_lines > N_FUNCTION_LINES_MAX:
                        offences.append(f"{name}: {node.name} has {n_lines} lines.")
    assert not offences, "\n".join(offences)


def test_nothing_else_at_the_top() -> None:
    patterns = [
        line.strip("/") for line in (CHECKOUT / ".gitignore").read_text().split("\n") if line[:1] not in ("", "#")
    ]
    names = [path.name for path in CHECKOUT.iterdir() if not any(fnmatch.fnmatch(path.name, p) for p in patterns)]
    allowed = {".ci", ".git", ".gitignore", "CHANGELOG.md", "LICENSE", "README.md", "pyproject.toml"}
    allowed |= {"benchmarks", "examples", "hpcfut", "launch", "slurm", "tests"}
    assert not set(names) - allowed
    assert [path.name for path in (CHECKOUT / ".ci").iterdir()] == ["run"]


def test_examples_use_the_public_names_only() -> None:
    imported = {
        name for path in (CHECKOUT / "examples").rglob("*.py") for name, _ in imports_of(ast.parse(path.read_text()))
    }
    assert "hpcfut" in imported
    libraries = ("hpcfut.io", "hpcfut.interop", "hpcfut.shuffle", "hpcfut.util")
    assert not [name for name in imported if name.startswith("hpcfut.") and not name.startswith(libraries)]


def test_import_is_light_and_starts_nothing() -> None:
    """What takes long, what starts MPI and what reads the number of threads is loaded where it is used."""
    heavy = ("cupy", "h5py", "mpi4py", "numpy", "psutil", "rich", "tqdm", "typer", "asyncio", "multiprocessing")
    script = f"""
import sys, threading
import hpcfut, hpcfut.io
print([name for name in {heavy!r} if name in sys.modules], threading.active_count())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=CHECKOUT)
    assert (done.stdout, done.stderr) == ("[] 1\n", "")
