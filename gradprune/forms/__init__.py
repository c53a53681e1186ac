"""Other forms of a network: frozen, on integers, shrunk."""
