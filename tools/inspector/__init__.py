"""`trunkline inspect`: the live actor tree on a terminal, over the control socket."""
