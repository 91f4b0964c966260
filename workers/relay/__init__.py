"""The relay process: hands out what is due. It sends nothing itself."""
