"""The joint network for depth, classes and normals, and its parts."""
