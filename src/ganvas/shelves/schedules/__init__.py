"""How rates and other numbers move while a run goes on."""
