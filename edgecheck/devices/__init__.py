"""Where runners run; today this machine alone."""
