"""How scores are made: protocols, the evidence they look at, and the judge that makes the rows."""
