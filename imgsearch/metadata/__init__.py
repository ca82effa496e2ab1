"""Metadata of images: tables, types of columns, and which values a field can have."""
