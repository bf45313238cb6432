"""Tools on the public names, where Ray has them."""
