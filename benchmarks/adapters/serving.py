"""The bare loop that never blocks in MPI and serves any peer, of `serving_loop.py`."""

from __future__ import annotations

import bare_loop

from adapters.bare import Bare


class Serving(Bare):
    """The bare loop in its second form."""

    run_sync = staticmethod(bare_loop.run_serving_sync)
    run_async = staticmethod(bare_loop.run_serving_async)


ADAPTER = Serving
