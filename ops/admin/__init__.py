"""What operators read and do; called by the CLI, and by any other front end. Nothing here prints."""
