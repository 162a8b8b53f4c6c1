"""How each family of pictures is drawn: pure functions of a class name and a random generator."""
