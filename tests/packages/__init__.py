"""Projects with the packages that Django projects have; a test run of its own, with settings of its own."""
