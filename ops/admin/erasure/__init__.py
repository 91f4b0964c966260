"""Acts that erase content: of a subject, by retention, and from the blob store."""
