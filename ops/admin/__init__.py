"""What operators read and do; called by the CLI, the console and the API. Nothing here prints."""
