"""Dense semantic SLAM: RGB-D frames become a labelled 3-D map of surfels."""
