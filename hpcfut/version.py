"""The version of hpcfut; all ranks of a job must have the same one."""

__version__ = "0.1.0.dev0"
