"""What a user says: models, inputs, data, metrics, budgets; and the cases that follow from it."""
