"""Measurements of collections and machines."""
