"""The algorithm, for any torch model: two gradients, a direction, a step size, the step and its
loop.
"""
