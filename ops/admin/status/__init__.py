"""The state of the whole system as one object, from the database, the broker and the processes: whichever of them answer."""
