"""Where a step computes: device, precision, memory, several processes."""
