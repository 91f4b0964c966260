"""A blob store for tests that have none."""

from ops.runtime.blobs import Blobs

NO_BLOBS = Blobs("/dev/null/blobs")  # takes nothing and has nothing
