"""The TURN door: clients come in, and each gets an address of ours that its peers can send to."""
