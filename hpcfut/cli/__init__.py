"""The `hpcfut` command: run, doctor."""

from __future__ import annotations


def main() -> None:
    """Run the command."""
    from hpcfut.cli.app import app

    app()
