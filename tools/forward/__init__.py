"""`trunkline forward`: makes local servers reachable at ports of a rendezvous relay."""
