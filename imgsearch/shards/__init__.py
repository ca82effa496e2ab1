"""Images in shards: the members of tar, zip and Parquet files, local or in an object store.

The first visit of a shard makes an index of its members, without their contents: where each one
is, and the fields that belong to it. The index is a local file, which belongs to one version of the
shard. After that a member is read by its range, and a shard that has not changed is not read.
"""

from imgsearch.shards.base import Member, ShardError
from imgsearch.shards.opening import open_member, open_shard, version_of_member
from imgsearch.shards.shard import Shard

__all__ = [
    "Member",
    "Shard",
    "ShardError",
    "open_member",
    "open_shard",
    "version_of_member",
]
