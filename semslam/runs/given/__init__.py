"""Poses that are given: what the images say of them."""
