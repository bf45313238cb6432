"""Ray on one machine, with one worker process."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable

import ray

from adapters.ray_names import RayNames


class Ray(RayNames):
    """One CPU, so that one worker runs all tasks; the driver is a process of its own."""

    def __init__(self) -> None:
        super().__init__(ray)

    def version(self) -> str:
        """Of Ray."""
        return f"ray {ray.__version__}"

    def run(self, body: Callable[[], None]) -> None:
        """Without its dashboard, which would take CPU of its own."""
        # Its sockets need a short path.
        folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")
        ray.init(num_cpus=1, include_dashboard=False, logging_level="ERROR", log_to_driver=False, _temp_dir=folder)
        try:
            body()
        finally:
            ray.shutdown()
            shutil.rmtree(folder, ignore_errors=True)


ADAPTER = Ray
