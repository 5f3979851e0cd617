"""Loops closed: keyframes registered against each other, a pose graph solved, the map deformed."""
