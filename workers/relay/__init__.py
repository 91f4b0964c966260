"""The relay process: hands due deliveries to the deliver processes. It sends nothing itself."""
