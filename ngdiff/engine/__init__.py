"""Where a step computes: device, precision, memory, processes."""
