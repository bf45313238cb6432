"""HDF5 files, chunk by chunk: data that no rank has to hold as a whole.

Example:
    >>> import numpy, os, tempfile
    >>> from hpcfut.io import read_hdf5, write_hdf5
    >>> path = os.path.join(tempfile.mkdtemp(), "data.h5")
    >>> rows = [hpcfut.put(numpy.full((1, 4), float(i))) for i in range(3)]
    >>> write_hdf5(path, "table", rows, shape=(3, 4), chunks=(1, 4))
    >>> [float(hpcfut.get(ref).sum()) for ref in read_hdf5(path, "table", chunks=(2, 4))]
    [4.0, 8.0]
"""

from hpcfut.io.hdf5 import read_hdf5, write_hdf5

__all__ = ["read_hdf5", "write_hdf5"]
