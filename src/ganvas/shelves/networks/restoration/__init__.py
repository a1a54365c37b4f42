"""Networks that restore data: super-resolution and the like, on pairs of what is given and what is wanted."""
