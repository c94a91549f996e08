"""`trunkline compat`: programs of others, with their flags, served by ours."""
