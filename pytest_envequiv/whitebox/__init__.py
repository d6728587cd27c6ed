"""What can be known about a port from its jaxpr. The only place that reads jaxprs."""
