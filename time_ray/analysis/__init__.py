"""Best-in-TIME: what cells score on halves of the test images, which may be best, how two compare, and what follows."""
