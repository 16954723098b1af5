"""How fast is this box? Measured with the real engine and the real service, without touching those that run."""
