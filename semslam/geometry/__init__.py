"""Meshes, clouds and objects, and the files that hold them."""
