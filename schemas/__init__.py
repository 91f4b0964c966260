"""What things are: frozen values without I/O, from the message at the edge to the attempt that delivers it.

No rules of the route.
"""
