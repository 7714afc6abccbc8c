"""Device, precision, memory, processes: where a step computes."""
