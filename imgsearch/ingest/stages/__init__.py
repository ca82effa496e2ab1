"""Stages of an ingest, in order: lookup, read, reuse, decode, encode, write."""
