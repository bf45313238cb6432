"""The package's own sources, parsed: what the tests of the architecture ask about them."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

CHECKOUT: Final = Path(__file__).resolve().parents[1]
PACKAGE: Final = CHECKOUT / "hpcfut"


def words(text: str) -> tuple[str, ...]:
    """A list that reads as text."""
    return tuple(text.split())


MUTATING: Final = words(
    "add append appendleft clear discard extend extendleft insert pop popitem popleft remove setdefault sort update"
)


class Module(NamedTuple):
    """A module of the package, parsed."""

    #: Without ``hpcfut.``; empty for the package itself.
    name: str
    path: Path
    tree: ast.Module


def _parse(path: Path, root: Path) -> Module:
    parts = path.relative_to(root).with_suffix("").parts
    return Module(".".join(part for part in parts if part != "__init__"), path, ast.parse(path.read_text()))


MODULES: Final = [_parse(path, PACKAGE) for path in sorted(PACKAGE.rglob("*.py"))]
NAMES: Final = frozenset(module.name for module in MODULES)


def is_within(name: str, places: Iterable[str]) -> bool:
    """Whether a module is one of these places or inside one; "" stands for everything."""
    return any(not place or name == place or name.startswith(f"{place}.") for place in places)


CORE: Final = [module for module in MODULES if is_within(module.name, ["core"])]


def imports_of(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Full name and line of everything that is imported, wherever the import stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"Line {node.lineno} imports relatively."
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                is_module = full.removeprefix("hpcfut.") in NAMES or not str(node.module).startswith("hpcfut")
                yield (full if is_module else str(node.module)), node.lineno


def own_name(imported: str) -> str | None:
    """The name inside the package, or None for a foreign module."""
    if imported == "hpcfut":
        return ""
    return imported.removeprefix("hpcfut.") if imported.startswith("hpcfut.") else None


def functions_of(tree: ast.Module) -> Iterator[tuple[str, ast.AST]]:
    """Functions and what stands outside of them, as (qualified name, node); inner functions count as their outer."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            yield from ((f"{node.name}.{getattr(member, 'name', '')}", member) for member in node.body)
        else:
            yield getattr(node, "name", ""), node


def nodes_with_users(tree: ast.Module) -> Iterator[tuple[ast.AST, ast.AST]]:
    """Every node, with the node that it is a part of."""
    for user in ast.walk(tree):
        for node in ast.iter_child_nodes(user):
            yield node, user


def line_of(node: ast.AST) -> int:
    """For messages."""
    return getattr(node, "lineno", 0)


def is_look(user: ast.AST) -> bool:
    """Whether a value is looked into by what uses it, and not only passed on."""
    if isinstance(user, ast.Compare):
        return not all(isinstance(operator, ast.Is | ast.IsNot) for operator in user.ops)
    if isinstance(user, ast.Call) and isinstance(user.func, ast.Name):
        return user.func.id in ("bytes", "len", "memoryview", "repr", "str")
    return isinstance(user, ast.Attribute | ast.BinOp | ast.For | ast.JoinedStr | ast.Subscript)


def is_set(node: ast.AST) -> bool:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return node.func.id in ("set", "frozenset")
    return isinstance(node, ast.Set | ast.SetComp)


def is_order_free(user: ast.AST) -> bool:
    """Whether only the size or the membership of a set is asked for."""
    if isinstance(user, ast.Compare):
        return all(isinstance(operator, ast.In | ast.NotIn) for operator in user.ops)
    return isinstance(user, ast.Call) and isinstance(user.func, ast.Name) and user.func.id in ("len", "sorted")


def global_state_of(tree: ast.Module) -> set[str]:
    """Names at module level whose objects are changed by functions, and functions that remember their results."""
    names = set()
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        names |= {target.id for target in targets if isinstance(target, ast.Name)}
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("hpcfut"):
            names |= {alias.asname or alias.name for alias in node.names}
    changed = {name for node in ast.walk(tree) if isinstance(node, ast.Global) for name in node.names}
    for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
        if any("cache" in ast.unparse(decorator) for decorator in function.decorator_list):
            changed.add(function.name)
        local = {name.arg for name in ast.walk(function.args) if isinstance(name, ast.arg)}
        stored = [node for node in ast.walk(function) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]
        local |= {node.id for node in stored}
        changed |= {name for name in _changed_in(function) if name in names - local}
    return changed


def _changed_in(function: ast.FunctionDef) -> Iterator[str]:
    for node in ast.walk(function):
        holder: ast.AST | None = None
        if isinstance(node, ast.Attribute | ast.Subscript) and not isinstance(node.ctx, ast.Load):
            holder = node.value
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in MUTATING:
            holder = node.func.value
        if isinstance(holder, ast.Name):
            yield holder.id
