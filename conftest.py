"""Root of the repository's pytest runs; pytester runs the plugin's own tests."""

pytest_plugins = ["pytester"]
