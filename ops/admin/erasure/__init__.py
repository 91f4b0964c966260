"""Acts that erase content: of a subject, by retention, and from the blob store; and that remove what is kept no longer."""
