"""Tools on the public names, where Ray has them."""

from hpcfut import list_named_actors

__all__ = ["list_named_actors"]
