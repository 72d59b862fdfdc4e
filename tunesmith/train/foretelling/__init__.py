"""What a run will take before it starts, by formulas and by measure, and what makes it smaller."""
