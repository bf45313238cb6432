"""The public names: refs, remote functions, calls. ``hpcfut/__init__.py`` exports them."""
