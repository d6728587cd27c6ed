"""What can be known about a port from its jaxpr. The only place that reads jaxprs."""

# The side of a comparison whose operands are the same: told where it was seen, and never asked for, since two floats
# need not be able to meet.
TIE = "tie"
