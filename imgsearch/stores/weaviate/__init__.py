"""The Weaviate store: one server, a cluster or Weaviate Cloud, by weaviate-client and gRPC.

`address` parses the URL, `connection` reaches the server, `backoff` waits for it, `failures`
classifies errors, `schema` maps collections and fields to classes and properties, `values` records
and conditions to objects and filters. `reader` reads, `push` and `patch` write, `repair` and
`pending_deletes` recover interrupted writes, `status` reports. `collection` and `store` implement
the protocols.
"""
