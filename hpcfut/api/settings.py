"""Settings: from the options of ``init`` and the environment to the configuration of a session."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from hpcfut.model.config import NBYTES_LINEAGE_MAX, Config
from hpcfut.model.resources import split_resources
from hpcfut.model.variables import LINEAGE_VARIABLE, RESOURCES_VARIABLE, SITES_VARIABLE, SLOTS_VARIABLE


def config_of(
    num_gpus: float | None = None,
    resources: Mapping[Any, Any] = MappingProxyType({}),
    object_store_memory: int | None = None,
    spill_folder: str | os.PathLike[str] = "",
    lineage_memory: int | None = None,
    namespace: str | None = None,
) -> Config:
    """The configuration for these options of ``init``; what they leave open is asked of the environment."""
    given = {**json.loads(os.environ.get(RESOURCES_VARIABLE) or "{}"), **resources}
    if num_gpus is not None:
        given["GPU"] = num_gpus
    everywhere, by_rank = split_resources(given)
    if lineage_memory is None and (chosen := os.environ.get(LINEAGE_VARIABLE)):
        lineage_memory = int(chosen)
    for name, nbytes in (("object_store_memory", object_store_memory), ("lineage_memory", lineage_memory)):
        if nbytes is not None and (type(nbytes) is not int or nbytes <= 0):
            raise ValueError(f"{name} is {nbytes!r}; give a number of bytes above 0.")
    if namespace is not None and not isinstance(namespace, str):
        raise ValueError(f"namespace is {namespace!r}; give a text.")
    return Config(
        namespace=namespace or "",
        n_slots=max(1, int(os.environ.get(SLOTS_VARIABLE) or 1)),
        resources=everywhere,
        resources_of_ranks=by_rank,
        nbytes_store=object_store_memory or 0,
        nbytes_lineage_max=lineage_memory or NBYTES_LINEAGE_MAX,
        notes_sites=os.environ.get(SITES_VARIABLE, "0") not in ("", "0"),
        spill_folder=os.path.abspath(os.path.expanduser(os.fsdecode(spill_folder))) if spill_folder else "",
    )
