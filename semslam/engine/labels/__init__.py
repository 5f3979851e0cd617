"""The classes of surfels: their evidence, how views and neighbours enter it, and a CRF of finished maps."""
