#!/usr/bin/env bash
# Installs hpcfut into a virtual environment of its own inside this checkout, with an MPI from PyPI,
# and counts the words of Python's standard library on 4 ranks.
#
#   launch/quickstart.sh              with Open MPI
#   MPI=mpich launch/quickstart.sh    with MPICH
#   PYTHON=python3.12 …               with another Python
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=launch/environment.sh
. launch/environment.sh

mpi=${MPI:-openmpi}
case $mpi in openmpi | mpich) ;; *) fail "MPI=$mpi is unknown: it is openmpi or mpich." ;; esac
python=${PYTHON:-python3}
check_python "$python"

environment="$PWD/.venvs/quickstart-$mpi"
make_environment "$python" "$environment" "$mpi"

sources=$("$environment/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["stdlib"])')
# Other packages of this Python may lie below, without any limit to their size.
"$environment/bin/hpcfut" run -n 4 examples/wordcount.py --verify --exclude site-packages "$sources"
