"""The peer relay protocol of openZro and NetBird: clients exchange messages by the peer's ID.

Sans-IO. `messages` are those between client and relay, `token` what a client proves itself by,
`health` decides when a silent client is gone, `instance_url` is what a relay calls itself;
`cluster_frame` and `cluster_hello` are spoken between the pods of one relay.

Source: protocol sheet peer 1 to 7.
"""
