"""What tests of systems built on Greffier may use: nothing here runs in production."""
