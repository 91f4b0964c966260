"""A blob store for tests that do not use one."""

from ops.runtime.blobs import Blobs

NO_BLOBS = Blobs("/dev/null/blobs")  # every write fails, and it holds nothing
