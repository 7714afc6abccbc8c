"""The algorithm: two gradients, a direction, a step size, a step, a loop, for any torch model."""
