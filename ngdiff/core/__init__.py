"""The algorithm, for any torch model: two gradients, a direction, a step size, a step, a loop."""
