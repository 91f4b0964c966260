"""Mail: from raw bytes to a document. Pure and bounded; no content of a mail stops it."""
