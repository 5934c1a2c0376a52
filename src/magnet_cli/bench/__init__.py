"""How fast a model is here, and how exact."""
