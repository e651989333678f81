"""Which megawatt goes where: the model as arrays, its solution, plans and their reasons."""
