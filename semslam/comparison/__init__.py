"""Sensor depth against predicted depth: the variants, their figures, one report."""
