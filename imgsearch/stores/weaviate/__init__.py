"""The Weaviate store: one server, a cluster or Weaviate Cloud, by weaviate-client and gRPC.

`address` reads the URL, `connect` reaches the server and waits for it where it went away,
`schema` maps collections and fields to Weaviate's classes and properties, `values` records and
conditions to objects and filters, `push` writes, and `store` puts these together.
"""
