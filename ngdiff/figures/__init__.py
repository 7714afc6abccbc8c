"""Figures: `style` (colours, names, saving), `theory` (quadratics, gradient space), `runs` (unlearning runs)."""
