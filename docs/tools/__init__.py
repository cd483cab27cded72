"""What the site is made with, beside Sphinx's extensions."""
