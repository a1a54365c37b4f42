"""Where rows and pictures of a run go, besides its folder."""
