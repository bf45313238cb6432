"""Where a task shall run, under the name by which programs for Ray import it.

The strategies without parameters are texts: ``"DEFAULT"`` fills ranks that are warm, ``"SPREAD"`` takes them in turn.
"""

from hpcfut import NodeAffinitySchedulingStrategy

__all__ = ["NodeAffinitySchedulingStrategy"]
