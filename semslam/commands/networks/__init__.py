"""Commands that train networks and use them on images."""
